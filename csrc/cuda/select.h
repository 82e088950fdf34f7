// Selection of the largest magnitudes of a whole vector without the host: state that one kernel leaves for
// the next, radix steps, and compaction that keeps the order in one pass.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/four.h"
#include "cuda/grid.h"
#include "cuda/simt.h"
#include "pydec/cuda.h"
#include "pydec/element.h"

namespace pydec::cuda {

constexpr unsigned kDigits = 2048;
constexpr std::size_t kSelectTile =
    4096;  // elements that a block of threads takes at a time, in rows of 1024
constexpr unsigned kSelectRows = 4;

inline std::size_t select_tiles(std::size_t n) {
  return n / kSelectTile + (n % kSelectTile != 0 ? 1 : 0);
}

/// What the kernels of one selection tell each other; starts as zeros.
struct Selection {
  std::uint32_t key;        ///< bits of the cut that are known so far
  unsigned long long rank;  ///< of the wanted key among those that share them
  std::uint32_t threshold;  ///< of candidates
  unsigned long long candidates;
  unsigned long long take;  ///< entries to select from the source
  unsigned from_all;        ///< the source is the whole vector, not the candidates
  unsigned finished;        ///< nothing is left to select
  unsigned radix_done[6];   ///< blocks that finished each radix step
  unsigned long long collect_ticket;
  unsigned long long emit_ticket;
};

/// Workspace of a selection. The first part is zeroed at the start of each.
struct SelectWork {
  Selection* selection;
  std::uint32_t* digits;          // kDigits for each of 6 radix steps
  unsigned long long* collected;  // for each tile: what tiles up to it collect
  unsigned long long* above;
  unsigned long long* ties;
  float* sample;
  std::uint32_t* names;  // candidates
  float* values;
};

/// Lays the parts of a workspace out, one after the other, each at a multiple of 16 from `start`, which may
/// be null.
struct Parts {
  void* start;
  std::size_t used = 0;

  template <class T>
  void place(T*& part, std::size_t count) {
    part = reinterpret_cast<T*>(static_cast<char*>(start) + used);
    used += (count * sizeof(T) + 15) / 16 * 16;
  }
};

/// Lays the parts out from `start` on; returns the bytes that they take. `zeroed` becomes the bytes of the
/// first part.
inline std::size_t layout(void* start, std::size_t n, std::size_t samples, std::size_t candidates,
                          SelectWork& work, std::size_t& zeroed) {
  Parts parts{start};
  parts.place(work.selection, 1);
  parts.place(work.digits, 6 * kDigits);
  parts.place(work.collected, select_tiles(n));
  parts.place(work.above, select_tiles(n));
  parts.place(work.ties, select_tiles(n));
  zeroed = parts.used;
  parts.place(work.sample, samples);
  parts.place(work.names, candidates);
  parts.place(work.values, candidates);
  return parts.used;
}

namespace {

/// Sums of the lanes below and of all, for a warp.
__device__ inline unsigned long long scan_warp(unsigned long long value) {
  const unsigned lane = threadIdx.x % kWarp;
#pragma unroll
  for (unsigned by = 1; by < kWarp; by *= 2) {
    const unsigned long long other = __shfl_up_sync(kFullWarp, value, by);
    if (lane >= by) value += other;
  }
  return value;
}

using WarpSums = unsigned long long[kWarps];

/// Sum of the threads before this one; `total` becomes that of all. Fields of a value may be summed side by
/// side. All threads call it; `sums` is free again after the next barrier.
__device__ inline unsigned long long scan_block(unsigned long long value, WarpSums& sums,
                                                unsigned long long& total) {
  const unsigned warp = threadIdx.x / kWarp;
  const unsigned long long inclusive = scan_warp(value);
  if (threadIdx.x % kWarp == kWarp - 1) sums[warp] = inclusive;
  __syncthreads();
  unsigned long long before = inclusive - value;
  total = 0;
#pragma unroll
  for (unsigned k = 0; k < kWarps; ++k) {
    if (k < warp) before += sums[k];
    total += sums[k];
  }
  return before;
}

constexpr unsigned long long kPartial = 1ull << 62;  // the word holds its tile's own count
constexpr unsigned long long kWhole = 2ull << 62;    // the word holds the count of all tiles up to its own
constexpr unsigned long long kCountMask = kPartial - 1;

/// Counts of the tiles before `tile`, whose own count is `own`; one warp calls it. Words are written whole,
/// so that a word that has a count needs no fence. Tiles are taken in order, so those before are under way.
///
/// Source: Merrill, Garland, "Single-pass parallel prefix scan with decoupled look-back", NVIDIA 2016.
__device__ inline unsigned long long look_back(unsigned long long* words, std::size_t tile,
                                               unsigned long long own) {
  const unsigned lane = threadIdx.x % kWarp;
  if (tile == 0) {
    if (lane == 0) atomicExch(&words[0], kWhole | own);
    return 0;
  }
  if (lane == 0) atomicExch(&words[tile], kPartial | own);
  unsigned long long before = 0;
  for (std::size_t next = tile;;) {  // the lanes look at the 32 tiles before `next`, the nearest first
    const volatile unsigned long long* at = words + next - 1 - lane;
    const unsigned long long word = lane < next ? *at : kWhole;
    if (__ballot_sync(kFullWarp, word >= kPartial) != kFullWarp) continue;
    const unsigned whole = __ballot_sync(kFullWarp, word >= kWhole);
    const unsigned nearest = whole == 0 ? kWarp : static_cast<unsigned>(__ffs(static_cast<int>(whole))) - 1;
    const unsigned long long sum = scan_warp(lane <= nearest ? word & kCountMask : 0);
    before += __shfl_sync(kFullWarp, sum, kWarp - 1);
    if (whole != 0) break;
    next -= kWarp;
  }
  if (lane == 0) atomicExch(&words[tile], kWhole | (before + own));
  return before;
}

/// The next number of a ticket, for the whole block.
__device__ inline unsigned long long take_ticket(unsigned long long* ticket, unsigned long long& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared = atomicAdd(ticket, 1ull);
  __syncthreads();
  return shared;
}

/// The digit that holds the rank-th largest of the counted keys; rank becomes the rank within it. One block
/// with a thread for every `each` digits calls it; all threads get the result. The counts may be the work of
/// other blocks, hence volatile.
template <unsigned each>
__device__ unsigned find_digit(const volatile std::uint32_t* counts, unsigned long long& rank, WarpSums& sums,
                               unsigned& shared_digit, unsigned long long& shared_rank) {
  // Thread t has the t-th run of digits from the top.
  const unsigned top = each * (kThreads - threadIdx.x);
  unsigned long long mine = 0;
#pragma unroll
  for (unsigned k = 0; k < each; ++k) mine += counts[top - each + k];
  unsigned long long total = 0;
  const unsigned long long before = scan_block(mine, sums, total);
  if (before < rank && rank <= before + mine) {
    unsigned long long left = rank - before;
    unsigned digit = top - 1;
    while (left > counts[digit]) left -= counts[digit--];
    shared_digit = digit;
    shared_rank = left;
  }
  __syncthreads();
  rank = shared_rank;
  return shared_digit;
}

/// Shared memory of a selection within a block of threads.
struct BlockSelect {
  std::uint32_t counts[kThreads];
  WarpSums sums;
  unsigned digit;
  unsigned long long rank;
};

/// emit(j, i, value) for the k largest magnitudes of at(0..n), 1 <= k <= n, j = 0..k-1 in ascending order of
/// i; ties go to the lowest i, and NaN is above infinity. Four radix steps, then the output. All threads of
/// the block call it, when the elements are there; these may change once it returns.
template <class At, class Emit>
__device__ void select_in_block(const At& at, std::size_t n, std::size_t k, BlockSelect& shared,
                                const Emit& emit) {
  std::uint32_t cut = 0;
  unsigned long long rank = k;
  for (int step = 0; step < 4; ++step) {
    const unsigned shift = step == 3 ? 0 : 23 - 8 * step;
    const unsigned width = step == 3 ? 7 : 8;
    shared.counts[threadIdx.x] = 0;
    __syncthreads();
    for (std::size_t i = threadIdx.x; i < n; i += kThreads) {
      const std::uint32_t key = magnitude_bits(at(i));
      if (key >> (shift + width) == cut) atomicAdd(&shared.counts[(key >> shift) & ((1u << width) - 1)], 1u);
    }
    __syncthreads();
    cut = (cut << width) | find_digit<1>(shared.counts, rank, shared.sums, shared.digit, shared.rank);
    __syncthreads();
  }
  unsigned long long above = 0;
  unsigned long long equal = 0;
  for (std::size_t from = 0; from < n; from += kThreads) {
    const std::size_t i = from + threadIdx.x;
    const float value = i < n ? at(i) : 0.0f;
    const std::uint32_t key = magnitude_bits(value);
    const bool is_above = i < n && key > cut;
    const bool is_equal = i < n && key == cut;
    unsigned long long total = 0;
    const unsigned long long before =
        scan_block((is_above ? 1ull : 0ull) | (is_equal ? 1ull << 32 : 0ull), shared.sums, total);
    const unsigned long long my_equal = equal + (before >> 32);
    if (is_above || (is_equal && my_equal < rank)) {
      emit(above + (before & 0xffffffffu) + (my_equal < rank ? my_equal : rank), i, value);
    }
    above += total & 0xffffffffu;
    equal += total >> 32;
    __syncthreads();
  }
}

}  // namespace
}  // namespace pydec::cuda
