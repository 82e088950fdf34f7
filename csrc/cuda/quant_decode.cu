#include "cuda/codes.h"
#include "cuda/four.h"
#include "cuda/grid.h"
#include "cuda/table.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

constexpr std::size_t kMessages = 16;  // that one launch adds

/// m messages, and `out`, to which they are added unless m is 0: then the one message is decoded.
template <std::size_t most>
struct Item {
  const std::uint8_t* codes[most];
  const float* scales[most];
  float* out;
  std::size_t n;
  bool aligned;        // out, to 16
  bool codes_aligned;  // to 4
};

struct Weights {
  float w[kMessages];
  unsigned m;
};

/// A thread takes one word of every message: four neighbours in each layer of a group.
template <Codec codec, std::size_t most>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ Table<Item<most>> table, const __grid_constant__ Weights weights,
                  std::size_t units, const Divisor groups_of_block) {
  using C = CodecOf<codec>;
  constexpr unsigned kLayers = layers_of(C::kBits);
  Cursor cursor;
  for (std::size_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const std::size_t at = cursor.move(table, unit) * kThreads + threadIdx.x;
    const Item<most>& item = table.at[cursor.item];
    const std::size_t group = at / 4;
    const std::size_t first = group * 16 * kLayers + at % 4 * 4;
    if (first >= item.n) continue;
    const std::size_t block = divide(group, groups_of_block);
    // Words of narrow codes are whole.
    const unsigned bytes = C::kBits == 8 ? four_of(first, item.n) : 4;
    if (weights.m == 0) {
      const std::uint32_t word = load_bytes(item.codes[0] + at * 4, bytes, item.codes_aligned);
      const float scale = item.scales[0][block];
#pragma unroll
      for (unsigned layer = 0; layer < kLayers; ++layer) {
        const std::size_t i = first + layer * 16;
        Four out;
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) out.v[j] = scale * C::level(code_in<C::kBits>(word, layer, j));
        store_four(out, item.out + i, four_of(i, item.n), item.aligned);
      }
      continue;
    }
    std::uint32_t word[most];
    float scale[most];
#pragma unroll
    for (unsigned k = 0; k < most; ++k) {
      if (k >= weights.m) break;
      word[k] = load_bytes(item.codes[k] + at * 4, bytes, item.codes_aligned);
      scale[k] = item.scales[k][block];
    }
#pragma unroll
    for (unsigned layer = 0; layer < kLayers; ++layer) {
      const std::size_t i = first + layer * 16;
      const unsigned count = four_of(i, item.n);
      Four out = load_four(item.out + i, count, item.aligned);
#pragma unroll
      for (unsigned k = 0; k < most; ++k) {
        if (k >= weights.m) break;
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
          const float value = scale[k] * C::level(code_in<C::kBits>(word[k], layer, j));
          out.v[j] = out.v[j] + weights.w[k] * value;
        }
      }
      store_four(out, item.out + i, count, item.aligned);
    }
  }
}

/// Messages first..first+m of every span; m = 0: the only message is decoded.
template <Codec codec, std::size_t most>
cudaError_t launch(const DecodeSpan* spans, std::size_t count, std::size_t block, const float* w,
                   std::size_t first, std::size_t m, cudaStream_t stream) {
  Weights weights = {};
  weights.m = static_cast<unsigned>(m);
  for (std::size_t k = 0; k < m; ++k) weights.w[k] = w[first + k];
  const auto item_of = [first, m](const DecodeSpan& span) {
    Item<most> item = {};
    item.codes_aligned = true;
    for (std::size_t k = 0; k < (m == 0 ? 1 : m); ++k) {
      item.codes[k] = span.codes[first + k];
      item.scales[k] = span.scales[first + k];
      item.codes_aligned = item.codes_aligned && aligned_to(4, item.codes[k]);
    }
    item.out = span.out;
    item.n = span.n;
    item.aligned = aligned_to(16, span.out);
    return item;
  };
  const auto units_of = [](const DecodeSpan& span) {
    return (code_words(codec, span.n) + kThreads - 1) / kThreads;
  };
  return for_tables<Item<most>>(spans, count, item_of, units_of, [&](const Table<Item<most>>& table) {
    constexpr auto kernel = decode_kernel<codec, most>;
    PYDEC_LAUNCH(kernel, grid_of(table.units(), 1), kThreads, stream)
    (table, weights, table.units(), divisor_of(block / group_of(codec)));
  });
}

template <Codec codec>
cudaError_t accumulate(const DecodeSpan* spans, std::size_t count, std::size_t block, const float* w,
                       std::size_t m, cudaStream_t stream) {
  for (std::size_t first = 0; first < m; first += kMessages) {
    const std::size_t some = m - first < kMessages ? m - first : kMessages;
    const cudaError_t error = some <= 2
                                  ? launch<codec, 2>(spans, count, block, w, first, some, stream)
                                  : launch<codec, kMessages>(spans, count, block, w, first, some, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

using Function = cudaError_t (*)(const DecodeSpan*, std::size_t, std::size_t, const float*, std::size_t,
                                 cudaStream_t);

template <Codec codec>
cudaError_t decode(const DecodeSpan* spans, std::size_t count, std::size_t block, const float*, std::size_t,
                   cudaStream_t stream) {
  return launch<codec, 2>(spans, count, block, nullptr, 0, 0, stream);
}

constexpr Function kDecode[kCodecs] = PYDEC_EACH_CODEC(decode);
constexpr Function kAccumulate[kCodecs] = PYDEC_EACH_CODEC(accumulate);

}  // namespace

cudaError_t quant_decode_f32(Codec codec, const DecodeSpan* spans, std::size_t count, std::size_t block,
                             cudaStream_t stream) noexcept {
  if (block == 0 || block % group_of(codec) != 0) return cudaErrorInvalidValue;
  return kDecode[static_cast<int>(codec)](spans, count, block, nullptr, 0, stream);
}

cudaError_t quant_accumulate_f32(Codec codec, const DecodeSpan* spans, std::size_t count, std::size_t block,
                                 const float* w, std::size_t m, cudaStream_t stream) noexcept {
  if (block == 0 || block % group_of(codec) != 0) return cudaErrorInvalidValue;
  return kAccumulate[static_cast<int>(codec)](spans, count, block, w, m, stream);
}

}  // namespace pydec::cuda
