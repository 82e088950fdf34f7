#include "cuda/gaps.h"
#include "cuda/grid.h"
#include "pydec/element_quant.h"
#include "pydec/topk_int8.h"

namespace pydec::cuda {
namespace {

using Codes = CodecOf<Codec::int8>;

/// What an encoder reports: a message's length, what is NaN or infinite, blocks that are too large.
enum Result : unsigned { kLength, kNonfinite, kTooLarge, kResults };

/// The largest of the lanes' numbers, in all of them.
template <class T>
__device__ T largest_of_warp(T mine) {
#pragma unroll
  for (unsigned step = kWarp / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, mine, step);
    mine = other > mine ? other : mine;
  }
  return mine;
}

/// Codes and scales of values, a warp for each block; nothing if a value is NaN or infinite.
__global__ void __launch_bounds__(kThreads)
    code_kernel(const float* values, std::size_t k, std::size_t block, std::size_t blocks,
                const TopkInt8Parts out, Count* results) {
  if (results[kNonfinite] != 0) return;
  float* const scales = reinterpret_cast<float*>(out.scales);
  const unsigned lane = threadIdx.x % kWarp;
  unsigned too_large = 0;
  for (std::size_t b = std::size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; b < blocks;
       b += std::size_t{gridDim.x} * kWarps) {
    const std::size_t first = b * block;
    const std::size_t end = k - first < block ? k : first + block;
    std::uint32_t largest = 0;
    for (std::size_t i = first + lane; i < end; i += kWarp) {
      const std::uint32_t bits = magnitude_bits(values[i]);
      largest = bits > largest ? bits : largest;
    }
    const Int8Rule rule = scale_rule(largest_of_warp(largest), Codes::kTop);
    for (std::size_t i = first + lane; i < end; i += kWarp) {
      std::uint32_t code = 0;
      if (rule.kind == Int8Kind::normal) code = Codes::nearest(values[i] * rule.inverse).code;
      if (rule.kind == Int8Kind::tiny) {
        code = Codes::nearest(tiny_units(values[i], rule.inverse, Codes::kTop)).code;
      }
      out.codes[i] = static_cast<std::uint8_t>(code & 0xffu);
    }
    if (lane != 0) continue;
    scales[b] = rule.scale;
    too_large += rule.kind == Int8Kind::bad ? 1 : 0;
  }
  add_count(too_large, results + kTooLarge);
}

/// residual = a - what is sent, at the selected places; a itself if nothing is sent.
__global__ void __launch_bounds__(kThreads)
    rest_kernel(const std::uint32_t* indices, const float* values, std::size_t k, std::size_t block,
                const TopkInt8Parts parts, const Count* results, float* residual) {
  const bool sent = results[kNonfinite] == 0 && results[kTooLarge] == 0;
  const float* const scales = reinterpret_cast<const float*>(parts.scales);
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t j = std::size_t{blockIdx.x} * kThreads + threadIdx.x; j < k; j += stride) {
    float rest = values[j];
    if (sent) {
      const float value = scales[j / block] * Codes::level(parts.codes[j]);
      rest = rest - value;
    }
    residual[indices[j]] = rest;
  }
}

__global__ void length_kernel(const GapState* state, std::size_t fixed, Count* results) {
  results[kLength] = fixed + state->bytes;
}

/// Faults of a message's scales and codes, and what they stand for; a warp for each block.
__global__ void __launch_bounds__(kThreads)
    value_kernel(const TopkInt8Parts parts, std::size_t k, std::size_t block, std::size_t blocks,
                 float* values, Count* faults) {
  const float* const scales = reinterpret_cast<const float*>(parts.scales);
  const unsigned lane = threadIdx.x % kWarp;
  unsigned found = 0;
  for (std::size_t b = std::size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; b < blocks;
       b += std::size_t{gridDim.x} * kWarps) {
    const std::size_t first = b * block;
    const std::size_t end = k - first < block ? k : first + block;
    const float scale = scales[b];
    int largest = 0;
    for (std::size_t i = first + lane; i < end; i += kWarp) {
      const int code = static_cast<std::int8_t>(parts.codes[i]);
      const int size = code < 0 ? -code : code;
      largest = size > largest ? size : largest;
      values[i] = scale * Codes::level(parts.codes[i]);
    }
    largest = largest_of_warp(largest);
    const bool negative = (bits_of(scale) & ~kMagnitudeMask) != 0;
    if (negative || bits_of(scale * Codes::kTop) >= kInfinityBits) found |= kBadTopkScale;
    const bool valid = scale == 0.0f ? largest == 0 : largest == 127 || (largest < 127 && scale < kTinyScale);
    if (!valid) found |= kBadTopkCode;
  }
  if (lane == 0 && found != 0) atomicOr(faults, static_cast<Count>(found));
}

/// verdict = the number of the first message with faults, and these; m and 0 if there is none.
__global__ void verdict_kernel(const Count* faults, std::size_t m, Count* verdict) {
  std::size_t first = 0;
  while (first < m && faults[first] == 0) ++first;
  verdict[0] = first;
  verdict[1] = first < m ? faults[first] : 0;
}

__global__ void __launch_bounds__(kThreads)
    copy_kernel(const std::uint32_t* from, std::size_t k, const Count* faults, std::uint32_t* to) {
  if (*faults != 0) return;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t j = std::size_t{blockIdx.x} * kThreads + threadIdx.x; j < k; j += stride) to[j] = from[j];
}

std::size_t value_blocks(std::size_t k, std::size_t block) {
  return k / block + (k % block != 0 ? 1 : 0);
}

/// Checks a message and leaves its entries in its workspace.
cudaError_t read(const TopkInt8Source& source, std::size_t n, Count* faults, GapWork& work,
                 cudaStream_t stream) {
  std::size_t zeroed = 0;
  gap_layout(source.work, source.k, work, zeroed);
  const std::size_t fixed = topk_int8_fixed(source.k, source.block);
  if (source.bytes < fixed) {
    PYDEC_LAUNCH(note_kernel, 1u, 1u, stream)(faults, kBadGapLength);
    return cudaGetLastError();
  }
  // The parts are only read.
  const TopkInt8Parts parts = topk_int8_parts(const_cast<std::uint8_t*>(source.body), source.k, source.block);
  const auto before = static_cast<std::size_t>(parts.widths - source.body);
  const cudaError_t error =
      unpack(parts.widths, source.bytes - before, source.k, n, work, zeroed, faults, stream);
  if (error != cudaSuccess || source.k == 0) return error;
  const std::size_t blocks = value_blocks(source.k, source.block);
  PYDEC_LAUNCH(value_kernel, grid_of(blocks, kWarps), kThreads, stream)
  (parts, source.k, source.block, blocks, work.values, faults);
  return cudaGetLastError();
}

bool fits(const TopkInt8Source& source, std::size_t n) {
  return source.block > 0 && source.k <= n && n <= 0xffffffffu;
}

}  // namespace

std::size_t gaps_work(std::size_t k) noexcept {
  GapWork work = {};
  std::size_t zeroed = 0;
  return gap_layout(nullptr, k, work, zeroed);
}

std::size_t topk_int8_work(std::size_t n, std::size_t k) noexcept {
  return gaps_work(k) + topk_work(n, k);
}

cudaError_t gaps_pack(const std::uint32_t* indices, std::size_t k, std::size_t n, std::uint8_t* out,
                      Count* results, void* start, cudaStream_t stream) noexcept {
  GapWork work = {};
  std::size_t zeroed = 0;
  gap_layout(start, k, work, zeroed);
  cudaError_t error = cudaMemsetAsync(work.state, 0, zeroed, stream);
  if (error == cudaSuccess) error = cudaMemsetAsync(results, 0, kResults * sizeof(Count), stream);
  if (error == cudaSuccess) error = scatter_check(indices, k, n, results + kNonfinite, stream);
  if (error != cudaSuccess || k == 0) return error;
  PYDEC_LAUNCH(pack_kernel, grid_of(gap_tiles(k), 1), kThreads, stream)
  (indices, k, work, out, out + gap_groups(k), results + kNonfinite);
  PYDEC_LAUNCH(length_kernel, 1u, 1u, stream)(work.state, gap_groups(k), results);
  return cudaGetLastError();
}

cudaError_t gaps_unpack(const std::uint8_t* data, std::size_t bytes, std::size_t n, std::uint32_t* indices,
                        std::size_t k, Count* faults, void* start, cudaStream_t stream) noexcept {
  GapWork work = {};
  std::size_t zeroed = 0;
  gap_layout(start, k, work, zeroed);
  const cudaError_t error = unpack(data, bytes, k, n, work, zeroed, faults, stream);
  if (error != cudaSuccess || k == 0) return error;
  PYDEC_LAUNCH(copy_kernel, grid_of(k, kThreads), kThreads, stream)(work.indices, k, faults, indices);
  return cudaGetLastError();
}

cudaError_t topk_int8_encode_f32(const float* x, float* residual, std::size_t n, std::size_t k,
                                 std::size_t block, std::uint8_t* body, Count* results, void* start,
                                 cudaStream_t stream) noexcept {
  if (block == 0 || k > n || n > 0xffffffffu) return cudaErrorInvalidValue;
  GapWork work = {};
  std::size_t zeroed = 0;
  const std::size_t used = gap_layout(start, k, work, zeroed);
  const TopkInt8Parts parts = topk_int8_parts(body, k, block);
  cudaError_t error = cudaMemsetAsync(work.state, 0, zeroed, stream);
  if (error == cudaSuccess) error = cudaMemsetAsync(results, 0, kResults * sizeof(Count), stream);
  if (error == cudaSuccess) {
    error = topk_select_f32(x, residual, n, k, work.indices, work.values, results + kNonfinite,
                            static_cast<char*>(start) + used, stream);
  }
  if (error != cudaSuccess || k == 0) return error;
  const std::size_t blocks = value_blocks(k, block);
  PYDEC_LAUNCH(code_kernel, grid_of(blocks, kWarps), kThreads, stream)
  (work.values, k, block, blocks, parts, results);
  if (residual != nullptr) {
    PYDEC_LAUNCH(rest_kernel, grid_of(k, kThreads), kThreads, stream)
    (work.indices, work.values, k, block, parts, results, residual);
  }
  PYDEC_LAUNCH(pack_kernel, grid_of(gap_tiles(k), 1), kThreads, stream)
  (work.indices, k, work, parts.widths, parts.packed, results + kNonfinite);
  PYDEC_LAUNCH(length_kernel, 1u, 1u, stream)(work.state, topk_int8_fixed(k, block), results);
  return cudaGetLastError();
}

cudaError_t topk_int8_decode_f32(const TopkInt8Source& source, float* out, std::size_t n, Count* faults,
                                 cudaStream_t stream) noexcept {
  if (!fits(source, n)) return cudaErrorInvalidValue;
  GapWork work = {};
  const cudaError_t error = read(source, n, faults, work, stream);
  if (error != cudaSuccess) return error;
  return sparse_decode_f32(work.indices, work.values, source.k, out, n, faults, stream);
}

cudaError_t topk_int8_accumulate_f32(const TopkInt8Source* sources, const float* w, std::size_t m, float* out,
                                     std::size_t n, Count* faults, Count* verdict,
                                     cudaStream_t stream) noexcept {
  cudaError_t error = cudaSuccess;
  for (std::size_t i = 0; i < m && error == cudaSuccess; ++i) {
    GapWork work = {};
    error = fits(sources[i], n) ? read(sources[i], n, faults + i, work, stream) : cudaErrorInvalidValue;
  }
  if (error != cudaSuccess) return error;
  PYDEC_LAUNCH(verdict_kernel, 1u, 1u, stream)(faults, m, verdict);
  error = cudaGetLastError();
  for (std::size_t i = 0; i < m && error == cudaSuccess; ++i) {
    GapWork work = {};
    std::size_t zeroed = 0;
    gap_layout(sources[i].work, sources[i].k, work, zeroed);
    error = scatter_f32(work.indices, work.values, sources[i].k, w[i], out, verdict + 1, stream);
  }
  return error;
}

}  // namespace pydec::cuda
