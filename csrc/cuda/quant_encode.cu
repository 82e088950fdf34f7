#include "cuda/encode.h"

namespace pydec::cuda {
namespace {

/// x, or with feedback x + residual, which becomes what is not sent.
struct Plain {
  static constexpr bool kWide = true;
  struct Vectors {
    const float* x;
    float* residual;
  };
  struct Held {};

  template <bool write>
  __device__ Four start(const Vectors& v, Held&, std::size_t i, unsigned count, bool aligned) const {
    Four a = load_four(v.x + i, count, aligned);
    if (v.residual == nullptr) return a;
    const Four left = load_four(v.residual + i, count, aligned);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) a.v[j] = a.v[j] + left.v[j];
    if (write) store_four(a, v.residual + i, count, aligned);
    return a;
  }

  __device__ Four again(const Vectors& v, Held&, std::size_t i, unsigned count, bool aligned) const {
    return load_four((v.residual != nullptr ? v.residual : v.x) + i, count, aligned);
  }

  __device__ void settle(const Vectors& v, const Held&, Four a, const Four& value, Int8Kind kind,
                         std::size_t i, unsigned count, bool aligned) const {
    if (v.residual == nullptr) return;
    if (kind == Int8Kind::normal || kind == Int8Kind::tiny) {
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) a.v[j] = a.v[j] - value.v[j];
    }
    store_four(a, v.residual + i, count, aligned);
  }
};

}  // namespace

cudaError_t quant_encode_f32(Codec codec, const EncodeSpan* spans, std::size_t count, std::size_t block,
                             const std::uint64_t* key, Count* bad, cudaStream_t stream) noexcept {
  const auto item_of = [](const EncodeSpan& span) {
    return EncodeItem<Plain::Vectors>{{span.x, span.residual},
                                      {span.n, span.codes, span.scales, span.first,
                                       aligned_to(16, span.x, span.residual), aligned_to(4, span.codes)}};
  };
  return encode_spans(codec, spans, count, block, key, Plain(), item_of, bad, stream);
}

}  // namespace pydec::cuda
