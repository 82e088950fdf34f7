#include "cuda/four.h"
#include "cuda/grid.h"
#include "cuda/table.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

/// A span as the kernel sees it; room for `most` inputs.
template <unsigned most>
struct Item {
  const float* x[most];
  float* out;
  const float* gradient;
  float* state;
  std::size_t n;
  bool aligned;
};

template <unsigned most>
struct Weights {
  float w[most];
  unsigned m;
};

// What follows the sum. Each gets the four elements from i on of an item, of which `count` exist.
struct Store {
  template <class I>
  __device__ void operator()(const I& item, std::size_t i, unsigned count, const Four& sum) const {
    store_four(sum, item.out + i, count, item.aligned);
  }
};

struct PushSum {
  float divisor;
  template <class I>
  __device__ void operator()(const I& item, std::size_t i, unsigned count, const Four& sum) const {
    Four ratio;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) ratio.v[j] = sum.v[j] / divisor;
    store_four(sum, item.out + i, count, item.aligned);
    store_four(ratio, item.state + i, count, item.aligned);
  }
};

struct Tracking {
  template <class I>
  __device__ void operator()(const I& item, std::size_t i, unsigned count, const Four& sum) const {
    const Four g = load_four(item.gradient + i, count, item.aligned);
    const Four old = load_four(item.state + i, count, item.aligned);
    Four out;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) out.v[j] = (sum.v[j] + g.v[j]) - old.v[j];
    store_four(out, item.out + i, count, item.aligned);
    store_four(g, item.state + i, count, item.aligned);
  }
};

struct Momentum {
  float momentum;
  float step;
  template <class I>
  __device__ void operator()(const I& item, std::size_t i, unsigned count, const Four& sum) const {
    const Four g = load_four(item.gradient + i, count, item.aligned);
    Four v = load_four(item.state + i, count, item.aligned);
    Four out;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
      v.v[j] = momentum * v.v[j] + g.v[j];
      out.v[j] = sum.v[j] + step * v.v[j];
    }
    store_four(out, item.out + i, count, item.aligned);
    store_four(v, item.state + i, count, item.aligned);
  }
};

/// All of an element's inputs are read before its output is written, which may be one of them.
template <unsigned most, class Finish>
__global__ void __launch_bounds__(kThreads)
    mix_kernel(const __grid_constant__ Table<Item<most>> table, const __grid_constant__ Weights<most> weights,
               std::size_t units, Finish finish) {
  Cursor cursor;
  for (std::size_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const std::size_t i = cursor.move(table, unit) * kTile + threadIdx.x * 4;
    const Item<most>& item = table.at[cursor.item];
    const unsigned count = four_of(i, item.n);
    if (count == 0) continue;
    Four sum;
#pragma unroll
    for (unsigned k = 0; k < most; ++k) {
      if (k >= weights.m) break;
      const Four x = load_four(item.x[k] + i, count, item.aligned);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        const float term = weights.w[k] * x.v[j];
        sum.v[j] = k == 0 ? term : sum.v[j] + term;
      }
    }
    finish(item, i, count, sum);
  }
}

template <unsigned most, class Finish>
cudaError_t launch(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                   const Finish& finish, cudaStream_t stream) {
  Weights<most> weights = {};
  weights.m = static_cast<unsigned>(m);
  for (std::size_t k = 0; k < m; ++k) weights.w[k] = w[k];
  const auto item_of = [m](const MixSpan& span) {
    Item<most> item = {};
    item.aligned = aligned_to(16, span.out, span.gradient, span.state);
    for (std::size_t k = 0; k < m; ++k) {
      item.x[k] = span.x[k];
      item.aligned = item.aligned && aligned_to(16, span.x[k]);
    }
    item.out = span.out;
    item.gradient = span.gradient;
    item.state = span.state;
    item.n = span.n;
    return item;
  };
  return for_tables<Item<most>>(
      spans, count, item_of, [](const MixSpan& span) { return tiles_of(span.n); },
      [&](const Table<Item<most>>& table) {
        constexpr auto kernel = mix_kernel<most, Finish>;
        PYDEC_LAUNCH(kernel, grid_of(table.units(), 1), kThreads, stream)
        (table, weights, table.units(), finish);
      });
}

template <class Finish>
cudaError_t sums(const MixSpan* spans, std::size_t count, const float* w, std::size_t m, const Finish& finish,
                 cudaStream_t stream) {
  if (m == 0 || m > kMaxMix) return cudaErrorInvalidValue;
  if (m <= 4) return launch<4>(spans, count, w, m, finish, stream);
  if (m <= 16) return launch<16>(spans, count, w, m, finish, stream);
  return launch<kMaxMix>(spans, count, w, m, finish, stream);
}

}  // namespace

cudaError_t mix_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                    cudaStream_t stream) noexcept {
  return sums(spans, count, w, m, Store(), stream);
}

cudaError_t push_sum_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                         float divisor, cudaStream_t stream) noexcept {
  return sums(spans, count, w, m, PushSum{divisor}, stream);
}

cudaError_t tracking_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                         cudaStream_t stream) noexcept {
  return sums(spans, count, w, m, Tracking(), stream);
}

cudaError_t momentum_f32(const MixSpan* spans, std::size_t count, const float* w, std::size_t m,
                         float momentum, float rate, cudaStream_t stream) noexcept {
  return sums(spans, count, w, m, Momentum{momentum, -rate}, stream);
}

}  // namespace pydec::cuda
