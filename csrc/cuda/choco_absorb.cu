#include "cuda/codes.h"
#include "cuda/four.h"
#include "cuda/grid.h"
#include "cuda/table.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

constexpr std::size_t kMessages = 8;  // that the last launch adds; those before are accumulated by others

struct Item {
  const std::uint8_t* codes[kMessages];
  const float* scales[kMessages];
  const std::uint8_t* own_codes;
  const float* own_scales;
  float* x;
  float* estimate;
  float* mixed;
  std::size_t n;
  bool aligned;        // x, estimate and mixed, to 16
  bool codes_aligned;  // to 4
};

struct Weights {
  float w[kMessages];
  unsigned m;
  float gamma;
};

/// As decode_kernel in quant_decode.cu: a thread takes one word of every message.
template <Codec codec>
__global__ void __launch_bounds__(kThreads)
    absorb_kernel(const __grid_constant__ Table<Item> table, const __grid_constant__ Weights weights,
                  std::size_t units, const Divisor groups_of_block) {
  using C = CodecOf<codec>;
  constexpr unsigned kLayers = layers_of(C::kBits);
  Cursor cursor;
  for (std::size_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const std::size_t at = cursor.move(table, unit) * kThreads + threadIdx.x;
    const Item& item = table.at[cursor.item];
    const std::size_t group = at / 4;
    const std::size_t first = group * 16 * kLayers + at % 4 * 4;
    if (first >= item.n) continue;
    const std::size_t block = divide(group, groups_of_block);
    const unsigned bytes = C::kBits == 8 ? four_of(first, item.n) : 4;
    std::uint32_t word[kMessages];
    float scale[kMessages];
#pragma unroll
    for (unsigned k = 0; k < kMessages; ++k) {
      if (k >= weights.m) break;
      word[k] = load_bytes(item.codes[k] + at * 4, bytes, item.codes_aligned);
      scale[k] = item.scales[k][block];
    }
    const std::uint32_t own_word = load_bytes(item.own_codes + at * 4, bytes, item.codes_aligned);
    const float own_scale = item.own_scales[block];
#pragma unroll
    for (unsigned layer = 0; layer < kLayers; ++layer) {
      const std::size_t i = first + layer * 16;
      const unsigned count = four_of(i, item.n);
      Four mixed = load_four(item.mixed + i, count, item.aligned);
      Four estimate = load_four(item.estimate + i, count, item.aligned);
      Four x = load_four(item.x + i, count, item.aligned);
#pragma unroll
      for (unsigned k = 0; k < kMessages; ++k) {
        if (k >= weights.m) break;
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
          const float value = scale[k] * C::level(code_in<C::kBits>(word[k], layer, j));
          mixed.v[j] = mixed.v[j] + weights.w[k] * value;
        }
      }
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        estimate.v[j] = estimate.v[j] + own_scale * C::level(code_in<C::kBits>(own_word, layer, j));
        x.v[j] = (x.v[j] + weights.gamma * mixed.v[j]) + (-weights.gamma) * estimate.v[j];
      }
      store_four(mixed, item.mixed + i, count, item.aligned);
      store_four(estimate, item.estimate + i, count, item.aligned);
      store_four(x, item.x + i, count, item.aligned);
    }
  }
}

template <Codec codec>
cudaError_t launch(const AbsorbSpan* spans, std::size_t count, float gamma, std::size_t block, const float* w,
                   std::size_t first, std::size_t m, cudaStream_t stream) {
  Weights weights = {};
  weights.m = static_cast<unsigned>(m);
  weights.gamma = gamma;
  for (std::size_t k = 0; k < m; ++k) weights.w[k] = w[first + k];
  const auto item_of = [first, m](const AbsorbSpan& span) {
    Item item = {};
    item.codes_aligned = aligned_to(4, span.codes[0]);
    for (std::size_t k = 0; k < m; ++k) {
      item.codes[k] = span.codes[first + k];
      item.scales[k] = span.scales[first + k];
      item.codes_aligned = item.codes_aligned && aligned_to(4, item.codes[k]);
    }
    item.own_codes = span.codes[0];
    item.own_scales = span.scales[0];
    item.x = span.x;
    item.estimate = span.estimate;
    item.mixed = span.mixed;
    item.n = span.n;
    item.aligned = aligned_to(16, span.x, span.estimate, span.mixed);
    return item;
  };
  const auto units_of = [](const AbsorbSpan& span) {
    return (code_words(codec, span.n) + kThreads - 1) / kThreads;
  };
  return for_tables<Item>(spans, count, item_of, units_of, [&](const Table<Item>& table) {
    PYDEC_LAUNCH(absorb_kernel<codec>, grid_of(table.units(), 1), kThreads, stream)
    (table, weights, table.units(), divisor_of(block / group_of(codec)));
  });
}

using Launch = cudaError_t (*)(const AbsorbSpan*, std::size_t, float, std::size_t, const float*, std::size_t,
                               std::size_t, cudaStream_t);
constexpr Launch kLaunch[kCodecs] = PYDEC_EACH_CODEC(launch);

}  // namespace

cudaError_t choco_absorb_f32(Codec codec, const AbsorbSpan* spans, std::size_t count, float gamma,
                             std::size_t block, const float* w, std::size_t m, cudaStream_t stream) noexcept {
  if (m == 0 || block == 0 || block % group_of(codec) != 0) return cudaErrorInvalidValue;
  std::size_t first = 0;
  // What one launch cannot take is added before, in order; a bucket at a time, because this is rare.
  if (m > kMessages) {
    first = m - kMessages;
    for (std::size_t k = 0; k < count; ++k) {
      const DecodeSpan span{spans[k].codes, spans[k].scales, spans[k].mixed, spans[k].n};
      const cudaError_t error = quant_accumulate_f32(codec, &span, 1, block, w, first, stream);
      if (error != cudaSuccess) return error;
    }
  }
  return kLaunch[static_cast<int>(codec)](spans, count, gamma, block, w, first, m - first, stream);
}

}  // namespace pydec::cuda
