// Bit-packed gaps (pydec/gaps.h) by warps, a group of 128 indices each; where a group's bytes go is a sum
// over the groups before it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/count.h"
#include "cuda/select.h"
#include "pydec/gaps.h"

namespace pydec::cuda {

/// Tells the kernels of one message about each other's results; starts as zeros.
struct GapState {
  unsigned long long ticket;
  unsigned long long end_ticket;
  unsigned long long bytes;  ///< of all groups
  unsigned long long fault;  ///< 0, or ~(4 * group + order): the largest is the first fault
};

/// Workspace of a message of k indices. The first part is zeroed at the start.
struct GapWork {
  GapState* state;
  unsigned long long* counted;  ///< for each tile of groups: bytes up to it
  unsigned long long* ended;    ///< indices' ends up to it
  unsigned long long* offsets;  ///< of each group's first byte
  std::uint32_t* indices;       ///< unpacked
  float* values;
};

constexpr unsigned kGroupLanes = kGapGroup / kWarp;  // gaps of a thread

/// Tiles of as many groups as a block of threads has warps.
inline std::size_t gap_tiles(std::size_t k) {
  return (gap_groups(k) + kWarps - 1) / kWarps;
}

/// Lays the parts out from `start` on, which may be null; returns the bytes that they take. `zeroed` becomes
/// the bytes of the first part.
inline std::size_t gap_layout(void* start, std::size_t k, GapWork& work, std::size_t& zeroed) {
  Parts parts{start};
  parts.place(work.state, 1);
  parts.place(work.counted, gap_tiles(k));
  parts.place(work.ended, gap_tiles(k));
  zeroed = parts.used;
  parts.place(work.offsets, gap_groups(k));
  parts.place(work.indices, k);
  parts.place(work.values, k);
  return parts.used;
}

namespace {

constexpr unsigned kWordBits = 32;

using Gaps = std::uint32_t[kWarps][kGapGroup];

/// Bits set in any lane, in all of them.
__device__ inline std::uint32_t any_of_warp(std::uint32_t bits) {
#pragma unroll
  for (unsigned by = kWarp / 2; by > 0; by /= 2) bits |= __shfl_xor_sync(kFullWarp, bits, by);
  return bits;
}

__device__ inline unsigned width_of(std::uint32_t bits) {
  unsigned width = 0;
  for (; bits != 0; bits >>= 1) ++width;
  return width;
}

/// Sum of what the warps before this one have, when each lane of a warp has the same number; all threads call
/// it. `total` becomes the sum of all.
__device__ inline unsigned long long sum_before(unsigned long long mine, WarpSums& sums,
                                                unsigned long long& total) {
  __syncthreads();
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = mine;
  __syncthreads();
  unsigned long long before = 0;
  total = 0;
#pragma unroll
  for (unsigned k = 0; k < kWarps; ++k) {
    if (k < threadIdx.x / kWarp) before += sums[k];
    total += sums[k];
  }
  return before;
}

/// Word `at` of a packed group: 32 bits of lane at % 4.
__device__ inline std::uint32_t packed_word(const std::uint32_t* gaps, unsigned width, unsigned at) {
  const unsigned lane = at % 4;
  const unsigned first = at / 4 * kWordBits;
  std::uint32_t word = 0;
  for (unsigned row = first / width; row * width < first + kWordBits && row < kGapGroup / 4; ++row) {
    const std::uint32_t gap = gaps[4 * row + lane];
    const unsigned bit = row * width;
    word |= bit >= first ? gap << (bit - first) : gap >> (first - bit);
  }
  return word;
}

__device__ inline std::uint32_t word_at(const std::uint8_t* packed, unsigned at) {
  std::uint32_t word = 0;
#pragma unroll
  for (unsigned b = 0; b < 4; ++b) word |= std::uint32_t{packed[4 * at + b]} << (8 * b);
  return word;
}

/// Gap i of a packed group, or what stands after the last one; 0 where the group has no more bytes.
__device__ inline std::uint32_t packed_gap(const std::uint8_t* packed, unsigned width, std::size_t bytes,
                                           unsigned i) {
  if (width == 0) return 0;
  const unsigned bit = i / 4 * width;
  const unsigned at = bit / kWordBits * 4 + i % 4;
  const unsigned shift = bit % kWordBits;
  std::uint32_t gap = 4 * std::size_t{at} < bytes ? word_at(packed, at) >> shift : 0;
  if (shift + width > kWordBits && 4 * std::size_t{at + 4} < bytes) {
    gap |= word_at(packed, at + 4) << (kWordBits - shift);
  }
  return gap & (~0u >> (kWordBits - width));
}

/// Packs indices below 2^32. Blocks of threads take tiles of groups in order. Nothing happens if *stop, or
/// the number behind it, is not 0 (null: never).
__global__ void __launch_bounds__(kThreads)
    pack_kernel(const std::uint32_t* indices, std::size_t k, const GapWork work, std::uint8_t* widths,
                std::uint8_t* packed, const Count* stop) {
  if (stop != nullptr && (stop[0] != 0 || stop[1] != 0)) return;
  PYDEC_SHARED(Gaps, gaps);
  PYDEC_SHARED(WarpSums, sums);
  PYDEC_SHARED(unsigned long long, shared_word);
  const unsigned lane = threadIdx.x % kWarp;
  std::uint32_t* mine = gaps[threadIdx.x / kWarp];
  for (;;) {
    const std::size_t tile = take_ticket(&work.state->ticket, shared_word);
    const std::size_t group = tile * kWarps + threadIdx.x / kWarp;
    if (tile * kWarps * kGapGroup >= k) return;
    const std::size_t first = group * kGapGroup;
    const std::size_t left = first < k ? k - first : 0;
    const std::size_t count = left < kGapGroup ? left : kGapGroup;
    std::uint32_t any = 0;
    for (unsigned i = lane; i < kGapGroup; i += kWarp) {
      std::uint32_t gap = 0;
      if (i < count) {
        const std::uint32_t before = first + i == 0 ? ~std::uint32_t{0} : indices[first + i - 1];
        gap = indices[first + i] - before - 1;
      }
      mine[i] = gap;
      any |= gap;
    }
    const unsigned width = width_of(any_of_warp(any));
    const std::size_t bytes = count == 0 ? 0 : gap_bytes(count, width);
    unsigned long long total = 0;
    const unsigned long long before = sum_before(bytes, sums, total);
    if (threadIdx.x < kWarp) {
      const unsigned long long start = look_back(work.counted, tile, total);
      if (threadIdx.x == 0) shared_word = start;
      if (threadIdx.x == 0 && (tile + 1) * kWarps * kGapGroup >= k) work.state->bytes = start + total;
    }
    __syncthreads();
    std::uint8_t* to = packed + shared_word + before;
    if (count != 0 && lane == 0) widths[group] = static_cast<std::uint8_t>(width);
    for (unsigned at = lane; at < bytes / 4; at += kWarp) {
      const std::uint32_t word = packed_word(mine, width, at);
#pragma unroll
      for (unsigned b = 0; b < 4; ++b) to[4 * at + b] = static_cast<std::uint8_t>(word >> (8 * b));
    }
  }
}

__device__ inline void note_fault(GapState& state, std::size_t group, unsigned order) {
  atomicMax(&state.fault, ~(4ull * group + order));
}

/// Where groups start, from their widths; a width above 32 is a fault and takes no room.
__global__ void __launch_bounds__(kThreads)
    offset_kernel(const std::uint8_t* widths, std::size_t k, std::size_t bytes, const GapWork work) {
  PYDEC_SHARED(WarpSums, sums);
  PYDEC_SHARED(unsigned long long, shared_word);
  const std::size_t groups = gap_groups(k);
  for (;;) {
    const std::size_t tile = take_ticket(&work.state->ticket, shared_word);
    if (tile * kThreads >= groups) return;
    const std::size_t group = tile * kThreads + threadIdx.x;
    const std::size_t left = group < groups ? k - group * kGapGroup : 0;
    const std::size_t count = left < kGapGroup ? left : kGapGroup;
    const unsigned width = group < groups ? widths[group] : 0;
    const std::size_t mine = width <= kMaxGapWidth ? gap_bytes(count, width) : 0;
    unsigned long long total = 0;
    unsigned long long offset = scan_block(mine, sums, total);
    if (threadIdx.x < kWarp) {
      const unsigned long long start = look_back(work.counted, tile, total);
      if (threadIdx.x == 0) shared_word = start;
      if (threadIdx.x == 0 && (tile + 1) * kThreads >= groups) work.state->bytes = start + total;
    }
    __syncthreads();
    offset += shared_word;
    if (group < groups) {
      work.offsets[group] = offset;
      if (width > kMaxGapWidth || offset > bytes || bytes - offset < mine) {
        note_fault(*work.state, group, 0);
      }
    }
  }
}

/// Checks groups and unpacks their indices, of which those before the first fault are right.
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const std::uint8_t* widths, const std::uint8_t* packed, std::size_t bytes, std::size_t k,
                  std::size_t n, const GapWork work) {
  PYDEC_SHARED(WarpSums, sums);
  PYDEC_SHARED(unsigned long long, shared_word);
  const unsigned lane = threadIdx.x % kWarp;
  for (;;) {
    const std::size_t tile = take_ticket(&work.state->end_ticket, shared_word);
    if (tile * kWarps * kGapGroup >= k) return;
    const std::size_t group = tile * kWarps + threadIdx.x / kWarp;
    const std::size_t first = group * kGapGroup;
    const std::size_t left = first < k ? k - first : 0;
    const std::size_t count = left < kGapGroup ? left : kGapGroup;
    unsigned width = 0;
    std::size_t size = 0;
    std::uint32_t gaps[kGroupLanes] = {};  // neighbours: of lane l, gaps 4 l to 4 l + 3
    if (count != 0) {
      width = widths[group] <= kMaxGapWidth ? widths[group] : 0;
      size = gap_bytes(count, width);
      const std::size_t offset = work.offsets[group];
      // Bytes that are not there count as zeros; offset_kernel has noted the fault.
      if (offset > bytes || bytes - offset < size) size = 0;
#pragma unroll
      for (unsigned i = 0; i < kGroupLanes; ++i) {
        gaps[i] = packed_gap(packed + offset, width, size, kGroupLanes * lane + i);
      }
    }
    std::uint32_t any = 0;
    bool padded = true;
    unsigned long long sum = 0;
#pragma unroll
    for (unsigned i = 0; i < kGroupLanes; ++i) {
      any |= gaps[i];
      padded = padded && (kGroupLanes * lane + i < count || gaps[i] == 0);
      sum += gaps[i] + (kGroupLanes * lane + i < count ? 1ull : 0ull);
    }
    const bool wrong = width_of(any_of_warp(any)) != width || __ballot_sync(kFullWarp, !padded) != 0;
    const unsigned long long inclusive = scan_warp(sum);
    unsigned long long all = __shfl_sync(kFullWarp, inclusive, kWarp - 1);
    // More than n is a fault whatever follows, so that no sum of these overflows.
    all = all < n + 1 ? all : n + 1;
    unsigned long long total = 0;
    const unsigned long long before = sum_before(all, sums, total);
    if (threadIdx.x < kWarp) {
      const unsigned long long start = look_back(work.ended, tile, total);
      if (threadIdx.x == 0) shared_word = start;
    }
    __syncthreads();
    const unsigned long long end = shared_word + before;
    if (count == 0) continue;
    if (lane == 0 && wrong) note_fault(*work.state, group, 1);
    if (lane == 0 && end + all > n) note_fault(*work.state, group, 2);
    unsigned long long next = end + inclusive - sum;  // one more than the index before
#pragma unroll
    for (unsigned i = 0; i < kGroupLanes; ++i) {
      next += gaps[i] + 1ull;
      const std::size_t at = first + kGroupLanes * lane + i;
      if (at < k) work.indices[at] = static_cast<std::uint32_t>(next - 1);
    }
  }
}

/// *faults |= what the checks of a message of `bytes` bytes of groups found: the first fault.
__global__ void conclude_kernel(const GapState* state, std::size_t bytes, Count* faults) {
  const unsigned long long fault = state->fault;
  if (fault == 0 && state->bytes == bytes) return;
  const auto order = static_cast<unsigned>(~fault % 4);
  const GapFault found =
      fault == 0 || order == 0 ? kBadGapLength : (order == 1 ? kBadGapWidth : kBadGapIndex);
  atomicOr(faults, static_cast<Count>(found));
}

__global__ void note_kernel(Count* faults, unsigned fault) {
  atomicOr(faults, static_cast<Count>(fault));
}

/// Checks k packed indices below n, of which `bytes` are there with the widths, and unpacks them to
/// work.indices.
inline cudaError_t unpack(const std::uint8_t* widths, std::size_t bytes, std::size_t k, std::size_t n,
                          const GapWork& work, std::size_t zeroed, Count* faults, cudaStream_t stream) {
  const std::size_t groups = gap_groups(k);
  if (bytes < groups) {
    PYDEC_LAUNCH(note_kernel, 1u, 1u, stream)(faults, kBadGapLength);
    return cudaGetLastError();
  }
  const cudaError_t error = cudaMemsetAsync(work.state, 0, zeroed, stream);
  if (error != cudaSuccess) return error;
  const std::uint8_t* packed = widths + groups;
  if (k > 0) {
    PYDEC_LAUNCH(offset_kernel, grid_of(groups, kThreads), kThreads, stream)(widths, k, bytes - groups, work);
    PYDEC_LAUNCH(unpack_kernel, grid_of(gap_tiles(k), 1), kThreads, stream)
    (widths, packed, bytes - groups, k, n, work);
  }
  PYDEC_LAUNCH(conclude_kernel, 1u, 1u, stream)(work.state, bytes - groups, faults);
  return cudaGetLastError();
}

}  // namespace
}  // namespace pydec::cuda
