#include "cuda/count.h"
#include "cuda/four.h"
#include "cuda/grid.h"
#include "cuda/table.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

constexpr std::size_t kMessages = 16;  // that one launch adds

template <Half half>
__device__ std::uint16_t code_of(float x) {
  return half == Half::bf16 ? bf16_code(x) : fp16_code(x);
}

template <Half half>
__device__ float value_of(std::uint16_t code) {
  return half == Half::bf16 ? bf16_value(code) : fp16_value(code);
}

template <Half half>
__device__ bool is_nonfinite(std::uint16_t code) {
  constexpr unsigned kInfinity = half == Half::bf16 ? 0x7f80 : 0x7c00;
  return (code & 0x7fffu) >= kInfinity;
}

struct Codes {
  std::uint16_t v[4];
};

__device__ Codes load_codes(const std::uint16_t* from, unsigned count, bool aligned) {
  Codes codes;
  if (aligned && count == 4) {
    PYDEC_CHECK_ALIGNED(from, 8);
    const std::uint64_t all = *reinterpret_cast<const std::uint64_t*>(from);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) codes.v[j] = static_cast<std::uint16_t>(all >> (16 * j));
    return codes;
  }
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) codes.v[j] = j < count ? from[j] : std::uint16_t{0};
  return codes;
}

__device__ void store_codes(const Codes& codes, std::uint16_t* to, unsigned count, bool aligned) {
  if (aligned && count == 4) {
    PYDEC_CHECK_ALIGNED(to, 8);
    std::uint64_t all = 0;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) all |= std::uint64_t{codes.v[j]} << (16 * j);
    *reinterpret_cast<std::uint64_t*>(to) = all;
    return;
  }
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) {
    if (j < count) to[j] = codes.v[j];
  }
}

struct EncodeItem {
  const float* x;
  float* residual;
  std::size_t n;
  std::uint16_t* codes;
  bool aligned;
};

template <Half half>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const __grid_constant__ Table<EncodeItem> table, std::size_t units, Count* bad) {
  Cursor cursor;
  unsigned found = 0;
  for (std::size_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const std::size_t i = cursor.move(table, unit) * kTile + threadIdx.x * 4;
    const EncodeItem& item = table.at[cursor.item];
    const unsigned count = four_of(i, item.n);
    if (count == 0) continue;
    Four a = load_four(item.x + i, count, item.aligned);
    Four residual = {};
    if (item.residual != nullptr) residual = load_four(item.residual + i, count, item.aligned);
    Codes codes;
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
      if (item.residual != nullptr) a.v[j] = a.v[j] + residual.v[j];
      const std::uint16_t code = code_of<half>(a.v[j]);
      codes.v[j] = code;
      const bool wrong = is_nonfinite<half>(code);
      residual.v[j] = wrong ? a.v[j] : a.v[j] - value_of<half>(code);
      found += wrong ? 1 : 0;
    }
    store_codes(codes, item.codes + i, count, item.aligned);
    if (item.residual != nullptr) store_four(residual, item.residual + i, count, item.aligned);
  }
  add_count(found, bad);
}

template <Half half>
__global__ void __launch_bounds__(kThreads)
    count_kernel(const std::uint16_t* codes, std::size_t n, bool aligned, Count* bad) {
  unsigned found = 0;
  const std::size_t stride = std::size_t{gridDim.x} * kTile;
  for (std::size_t i = std::size_t{blockIdx.x} * kTile + threadIdx.x * 4; i < n; i += stride) {
    const Codes four = load_codes(codes + i, four_of(i, n), aligned);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) found += is_nonfinite<half>(four.v[j]) ? 1 : 0;
  }
  add_count(found, bad);
}

/// m messages, and `out`, to which they are added unless m is 0: then the one message is decoded.
template <std::size_t most>
struct Item {
  const std::uint16_t* codes[most];
  float* out;
  std::size_t n;
  bool aligned;
};

struct Weights {
  float w[kMessages];
  unsigned m;
};

template <Half half, std::size_t most>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ Table<Item<most>> table, const __grid_constant__ Weights weights,
                  std::size_t units) {
  Cursor cursor;
  for (std::size_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const std::size_t i = cursor.move(table, unit) * kTile + threadIdx.x * 4;
    const Item<most>& item = table.at[cursor.item];
    const unsigned count = four_of(i, item.n);
    if (count == 0) continue;
    Four out;
    if (weights.m == 0) {
      const Codes codes = load_codes(item.codes[0] + i, count, item.aligned);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) out.v[j] = value_of<half>(codes.v[j]);
    } else {
      out = load_four(item.out + i, count, item.aligned);
#pragma unroll
      for (unsigned k = 0; k < most; ++k) {
        if (k >= weights.m) break;
        const Codes codes = load_codes(item.codes[k] + i, count, item.aligned);
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) out.v[j] = out.v[j] + weights.w[k] * value_of<half>(codes.v[j]);
      }
    }
    store_four(out, item.out + i, count, item.aligned);
  }
}

template <Half half>
cudaError_t encode(const CastSpan* spans, std::size_t count, Count* bad, cudaStream_t stream) {
  const auto item_of = [](const CastSpan& span) {
    return EncodeItem{span.x, span.residual, span.n, span.codes,
                      aligned_to(16, span.x, span.residual) && aligned_to(8, span.codes)};
  };
  return for_tables<EncodeItem>(
      spans, count, item_of, [](const CastSpan& span) { return tiles_of(span.n); },
      [&](const Table<EncodeItem>& table) {
        PYDEC_LAUNCH(encode_kernel<half>, grid_of(table.units(), 1), kThreads, stream)
        (table, table.units(), bad);
      });
}

/// Messages first..first+m of every span; m = 0: the only message is decoded.
template <Half half, std::size_t most>
cudaError_t decode(const HalfSpan* spans, std::size_t count, const float* w, std::size_t first, std::size_t m,
                   cudaStream_t stream) {
  Weights weights = {};
  weights.m = static_cast<unsigned>(m);
  for (std::size_t k = 0; k < m; ++k) weights.w[k] = w[first + k];
  const auto item_of = [first, m](const HalfSpan& span) {
    Item<most> item = {};
    item.aligned = aligned_to(16, span.out);
    for (std::size_t k = 0; k < (m == 0 ? 1 : m); ++k) {
      item.codes[k] = span.codes[first + k];
      item.aligned = item.aligned && aligned_to(8, item.codes[k]);
    }
    item.out = span.out;
    item.n = span.n;
    return item;
  };
  return for_tables<Item<most>>(
      spans, count, item_of, [](const HalfSpan& span) { return tiles_of(span.n); },
      [&](const Table<Item<most>>& table) {
        constexpr auto kernel = decode_kernel<half, most>;
        PYDEC_LAUNCH(kernel, grid_of(table.units(), 1), kThreads, stream)(table, weights, table.units());
      });
}

template <Half half>
cudaError_t accumulate(const HalfSpan* spans, std::size_t count, const float* w, std::size_t m,
                       cudaStream_t stream) {
  for (std::size_t first = 0; first < m; first += kMessages) {
    const std::size_t some = m - first < kMessages ? m - first : kMessages;
    const cudaError_t error = some <= 2 ? decode<half, 2>(spans, count, w, first, some, stream)
                                        : decode<half, kMessages>(spans, count, w, first, some, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t cast_encode_f32(Half half, const CastSpan* spans, std::size_t count, Count* bad,
                            cudaStream_t stream) noexcept {
  return half == Half::bf16 ? encode<Half::bf16>(spans, count, bad, stream)
                            : encode<Half::fp16>(spans, count, bad, stream);
}

cudaError_t cast_decode_f32(Half half, const HalfSpan* spans, std::size_t count,
                            cudaStream_t stream) noexcept {
  return half == Half::bf16 ? decode<Half::bf16, 2>(spans, count, nullptr, 0, 0, stream)
                            : decode<Half::fp16, 2>(spans, count, nullptr, 0, 0, stream);
}

cudaError_t cast_accumulate_f32(Half half, const HalfSpan* spans, std::size_t count, const float* w,
                                std::size_t m, cudaStream_t stream) noexcept {
  return half == Half::bf16 ? accumulate<Half::bf16>(spans, count, w, m, stream)
                            : accumulate<Half::fp16>(spans, count, w, m, stream);
}

cudaError_t cast_count_nonfinite(Half half, const std::uint16_t* codes, std::size_t n, Count* bad,
                                 cudaStream_t stream) noexcept {
  if (n == 0) return cudaSuccess;
  const bool aligned = aligned_to(8, codes);
  const unsigned grid = grid_of(tiles_of(n), 1);
  if (half == Half::bf16) {
    PYDEC_LAUNCH(count_kernel<Half::bf16>, grid, kThreads, stream)(codes, n, aligned, bad);
  } else {
    PYDEC_LAUNCH(count_kernel<Half::fp16>, grid, kThreads, stream)(codes, n, aligned, bad);
  }
  return cudaGetLastError();
}

}  // namespace pydec::cuda
