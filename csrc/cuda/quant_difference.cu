#include "cuda/encode.h"

namespace pydec::cuda {
namespace {

struct Difference {
  static constexpr bool kWide = false;
  struct Vectors {
    const float* x;
    const float* y;
  };
  struct Held {};

  template <bool write>
  __device__ Four start(const Vectors& v, Held& held, std::size_t i, unsigned count, bool aligned) const {
    return again(v, held, i, count, aligned);
  }

  __device__ Four again(const Vectors& v, Held&, std::size_t i, unsigned count, bool aligned) const {
    Four a = load_four(v.x + i, count, aligned);
    const Four y = load_four(v.y + i, count, aligned);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) a.v[j] = a.v[j] - y.v[j];
    return a;
  }

  __device__ void settle(const Vectors&, const Held&, const Four&, const Four&, Int8Kind, std::size_t,
                         unsigned, bool) const {}
};

}  // namespace

cudaError_t quant_encode_difference_f32(Codec codec, const DifferenceSpan* spans, std::size_t count,
                                        std::size_t block, const std::uint64_t* key, Count* bad,
                                        cudaStream_t stream) noexcept {
  const auto item_of = [](const DifferenceSpan& span) {
    return EncodeItem<Difference::Vectors>{{span.x, span.y},
                                           {span.n, span.codes, span.scales, span.first,
                                            aligned_to(16, span.x, span.y), aligned_to(4, span.codes)}};
  };
  return encode_spans(codec, spans, count, block, key, Difference(), item_of, bad, stream);
}

}  // namespace pydec::cuda
