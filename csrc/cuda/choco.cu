#include "cuda/encode.h"
#include "pydec/choco.h"

namespace pydec::cuda {
namespace {

/// Mixes, steps, gives x - estimate, and adds what is sent to both estimates.
struct Step {
  static constexpr bool kWide = false;
  struct Vectors {
    float* x;
    float* estimate;
    float* mixed;
    const float* gradient;
  };
  struct Held {
    Four estimate;
    Four mixed;
  };
  float gamma;
  float own;
  float rate;

  template <bool write>
  __device__ Four start(const Vectors& v, Held& held, std::size_t i, unsigned count, bool aligned) const {
    Four x = load_four(v.x + i, count, aligned);
    held.estimate = load_four(v.estimate + i, count, aligned);
    held.mixed = load_four(v.mixed + i, count, aligned);
    Four gradient = {};
    if (v.gradient != nullptr) gradient = load_four(v.gradient + i, count, aligned);
    Four d;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
      float value = (x.v[j] + gamma * held.mixed.v[j]) + (-gamma) * held.estimate.v[j];
      if (v.gradient != nullptr) value = value + (-rate) * gradient.v[j];
      x.v[j] = value;
      d.v[j] = value - held.estimate.v[j];
    }
    store_four(x, v.x + i, count, aligned);
    return d;
  }

  __device__ Four again(const Vectors& v, Held& held, std::size_t i, unsigned count, bool aligned) const {
    Four d = load_four(v.x + i, count, aligned);
    held.estimate = load_four(v.estimate + i, count, aligned);
    held.mixed = load_four(v.mixed + i, count, aligned);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) d.v[j] = d.v[j] - held.estimate.v[j];
    return d;
  }

  /// A scale of 0 sends zeros, which are added all the same: -0 becomes 0.
  __device__ void settle(const Vectors& v, Held& held, const Four&, const Four& value, Int8Kind kind,
                         std::size_t i, unsigned count, bool aligned) const {
    if (kind == Int8Kind::bad) return;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
      held.mixed.v[j] = held.mixed.v[j] + own * value.v[j];
      held.estimate.v[j] = held.estimate.v[j] + value.v[j];
    }
    store_four(held.mixed, v.mixed + i, count, aligned);
    store_four(held.estimate, v.estimate + i, count, aligned);
  }
};

}  // namespace

cudaError_t choco_step_f32(Codec codec, const ChocoSpan* spans, std::size_t count,
                           const ChocoFactors& factors, std::size_t block, const std::uint64_t* key,
                           Count* bad, cudaStream_t stream) noexcept {
  const Step step{factors.gamma, factors.own, factors.rate};
  const auto item_of = [](const ChocoSpan& span) {
    return EncodeItem<Step::Vectors>{
        {span.x, span.estimate, span.mixed, span.gradient},
        {span.n, span.codes, span.scales, span.first,
         aligned_to(16, span.x, span.estimate, span.mixed, span.gradient), aligned_to(4, span.codes)}};
  };
  return encode_spans(codec, spans, count, block, key, step, item_of, bad, stream);
}

}  // namespace pydec::cuda
