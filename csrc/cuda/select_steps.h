// The kernels of csrc/cuda/select.h: sample, radix step, collection of candidates, and output.
#pragma once

#include <type_traits>

#include "cuda/count.h"
#include "cuda/select.h"
#include "pydec/element.h"

namespace pydec::cuda {

/// Everything about one selection that the host knows.
struct SelectTask {
  const float* x;
  float* residual;
  std::size_t n;
  std::size_t sample_lines;  ///< 0: no sample
  std::size_t samples;       ///< elements of the sample
  std::size_t sample_rank;
  bool sample_all;  ///< the sample is the vector itself
  std::size_t capacity;
  std::size_t least;
  std::size_t most;
  std::uint32_t* indices;
  float* values;
  Count* found;
  Count* bad;
  SelectWork work;
  bool keep_candidates;  ///< within bounds, the candidates are the result, and lie in indices and values
};

namespace {

constexpr std::size_t kLine = 16;  // elements of a line of the sample

/// State of the sample's generator after `steps` steps from `state`, as csrc/cpu/select.h takes them.
__device__ inline std::uint64_t advance(std::uint64_t state, std::uint64_t steps) {
  std::uint64_t factor = 6364136223846793005u;
  std::uint64_t summand = 1442695040888963407u;
  for (; steps != 0; steps >>= 1) {
    if ((steps & 1) != 0) state = state * factor + summand;
    summand = (factor + 1) * summand;
    factor = factor * factor;
  }
  return state;
}

template <int = 0>
__global__ void __launch_bounds__(kThreads) sample_kernel(const __grid_constant__ SelectTask task) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  const std::size_t start = std::size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (start == 0) task.work.selection->rank = task.sample_rank;
  if (task.sample_all) return;
  const std::size_t apart = task.n / task.sample_lines;
  for (std::size_t at = start; at < task.samples; at += stride) {
    const std::size_t line = at / kLine;
    const std::uint64_t state = advance(task.n, line + 1);
    const std::size_t i = line * apart + (state >> 33) % (apart - kLine + 1) + at % kLine;
    task.work.sample[at] = task.residual != nullptr ? task.x[i] + task.residual[i] : task.x[i];
  }
}

/// One radix step over what the selection looks at now: fixes `width` more bits of the key. The block that
/// finishes last finds the digit. Step 0..2: of the sample; 3..5: of the source.
template <unsigned step>
__global__ void __launch_bounds__(kThreads) radix_kernel(const __grid_constant__ SelectTask task) {
  constexpr unsigned kShift = step % 3 == 0 ? 20 : (step % 3 == 1 ? 9 : 0);
  constexpr unsigned kWidth = step % 3 == 2 ? 9 : 11;
  using Counts = std::uint32_t[kDigits];
  PYDEC_SHARED(Counts, counts);
  PYDEC_SHARED(WarpSums, sums);
  PYDEC_SHARED(unsigned, shared_word);
  PYDEC_SHARED(unsigned long long, shared_rank);
  Selection& selection = *task.work.selection;
  if (selection.finished != 0) return;
  const float* a = task.residual != nullptr ? task.residual : task.x;
  const float* source = task.sample_all ? a : task.work.sample;
  std::size_t n = task.samples;
  if (step >= 3) {
    source = selection.from_all != 0 ? a : task.work.values;
    n = selection.from_all != 0 ? task.n : selection.candidates;
  }
  for (unsigned j = threadIdx.x; j < kDigits; j += kThreads) counts[j] = 0;
  __syncthreads();
  const std::uint32_t prefix = selection.key;
  const bool aligned = reinterpret_cast<std::uintptr_t>(source) % 16 == 0;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads * 4;
  for (std::size_t i = (std::size_t{blockIdx.x} * kThreads + threadIdx.x) * 4; i < n; i += stride) {
    const unsigned count = four_of(i, n);
    const Four four = load_four(source + i, count, aligned);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
      const std::uint32_t key = magnitude_bits(four.v[j]);
      if (j < count && key >> (kShift + kWidth) == prefix) {
        atomicAdd(&counts[(key >> kShift) & ((1u << kWidth) - 1)], 1u);
      }
    }
  }
  __syncthreads();
  std::uint32_t* all = task.work.digits + step * kDigits;
  for (unsigned j = threadIdx.x; j < kDigits; j += kThreads) {
    if (counts[j] != 0) atomicAdd(&all[j], counts[j]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) shared_word = atomicAdd(&selection.radix_done[step], 1u);
  __syncthreads();
  if (shared_word != gridDim.x - 1) return;
  __threadfence();
  __syncthreads();
  unsigned long long rank = selection.rank;
  const unsigned digit = find_digit<kDigits / kThreads>(all, rank, sums, shared_word, shared_rank);
  if (threadIdx.x == 0) {
    selection.key = (prefix << kWidth) | digit;
    selection.rank = rank;
  }
}

/// One pass: residual = x + residual, bad elements are counted, and candidates are collected in order.
template <int = 0>
__global__ void __launch_bounds__(kThreads) collect_kernel(const __grid_constant__ SelectTask task) {
  PYDEC_SHARED(WarpSums, sums);
  PYDEC_SHARED(unsigned long long, shared_word);
  Selection& selection = *task.work.selection;
  const bool sampled = task.samples != 0;
  const bool added = task.sample_all && task.residual != nullptr;  // x already, to the residual
  const std::uint32_t key = selection.key;
  // Every NaN and infinity is to be a candidate; zeros never are.
  const std::uint32_t threshold = key > kInfinityBits ? kInfinityBits : (key > 0 ? key : 1);
  std::uint32_t* names = task.keep_candidates ? task.indices : task.work.names;
  float* values = task.keep_candidates ? task.values : task.work.values;
  const bool aligned = reinterpret_cast<std::uintptr_t>(task.x) % 16 == 0 &&
                       reinterpret_cast<std::uintptr_t>(task.residual) % 16 == 0;
  const std::size_t tiles = (task.n + kSelectTile - 1) / kSelectTile;
  unsigned bad = 0;
  for (;;) {
    const std::size_t tile = take_ticket(&selection.collect_ticket, shared_word);
    if (tile >= tiles) break;
    Four a[kSelectRows];
    unsigned long long mine = 0;  // counts of the rows, 16 bits each
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) {
      const std::size_t i = tile * kSelectTile + (r * kThreads + threadIdx.x) * 4;
      const unsigned count = four_of(i, task.n);
      a[r] = load_four((added ? task.residual : task.x) + i, count, aligned);
      if (task.residual != nullptr && !added) {
        const Four left = load_four(task.residual + i, count, aligned);
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) a[r].v[j] = a[r].v[j] + left.v[j];
        store_four(a[r], task.residual + i, count, aligned);
      }
    }
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) {
      const std::size_t i = tile * kSelectTile + (r * kThreads + threadIdx.x) * 4;
      const unsigned count = four_of(i, task.n);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        const std::uint32_t bits = magnitude_bits(a[r].v[j]);
        bad += j < count && bits >= kInfinityBits ? 1 : 0;
        if (j < count && bits >= threshold) mine += 1ull << (16 * r);
      }
    }
    if (!sampled) continue;
    unsigned long long total = 0;
    const unsigned long long before = scan_block(mine, sums, total);
    unsigned long long all = 0;
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) all += total >> (16 * r) & 0xffff;
    if (threadIdx.x < kWarp) {
      const unsigned long long start = look_back(task.work.collected, tile, all);
      if (threadIdx.x == 0) {
        shared_word = start;
        if (tile + 1 == tiles) selection.candidates = start + all;
      }
    }
    __syncthreads();
    unsigned long long row = shared_word;
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) {
      unsigned long long to = row + (before >> (16 * r) & 0xffff);
      row += total >> (16 * r) & 0xffff;
      const std::size_t i = tile * kSelectTile + (r * kThreads + threadIdx.x) * 4;
      const unsigned count = four_of(i, task.n);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        if (j >= count || magnitude_bits(a[r].v[j]) < threshold) continue;
        if (to < task.capacity) {
          names[to] = static_cast<std::uint32_t>(i + j);
          values[to] = a[r].v[j];
        }
        ++to;
      }
    }
  }
  add_count(bad, task.bad);
}

/// residual = x + residual, for a sample of everything.
template <int = 0>
__global__ void __launch_bounds__(kThreads) add_kernel(const float* x, float* residual, std::size_t n) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    residual[i] = x[i] + residual[i];
  }
}

/// Whether the candidates will do, and how many entries are selected from what.
template <int = 0>
__global__ void decide_kernel(const __grid_constant__ SelectTask task) {
  Selection& selection = *task.work.selection;
  const unsigned long long candidates = selection.candidates;
  const bool enough = task.samples != 0 && candidates >= task.least;
  unsigned long long take = task.least;
  if (task.keep_candidates) {
    selection.finished = enough && candidates <= task.most ? 1 : 0;
    selection.from_all = 1;
    take = selection.finished != 0 ? candidates : (enough ? task.most : task.least);
  } else {
    selection.from_all = enough && candidates <= task.capacity ? 0 : 1;
  }
  if (task.found != nullptr) *task.found = take;
  selection.take = take;
  selection.rank = take;
  selection.key = 0;
  if (take == 0) selection.finished = 1;
}

/// Writes the selected entries in order, and zeros to their places in the residual.
template <int = 0>
__global__ void __launch_bounds__(kThreads) emit_kernel(const __grid_constant__ SelectTask task) {
  PYDEC_SHARED(WarpSums, sums);
  PYDEC_SHARED(WarpSums, tie_sums);
  PYDEC_SHARED(unsigned long long, shared_word);
  PYDEC_SHARED(unsigned long long, shared_ties);
  Selection& selection = *task.work.selection;
  if (selection.finished != 0) {  // the result is there already
    if (task.residual == nullptr) return;
    const std::size_t stride = std::size_t{gridDim.x} * kThreads;
    for (std::size_t j = std::size_t{blockIdx.x} * kThreads + threadIdx.x; j < selection.take; j += stride) {
      task.residual[task.indices[j]] = 0.0f;
    }
    return;
  }
  const bool from_all = selection.from_all != 0;
  const float* source = !from_all ? task.work.values : (task.residual != nullptr ? task.residual : task.x);
  const std::size_t n = from_all ? task.n : selection.candidates;
  const std::uint32_t cut = selection.key;
  const unsigned long long ties = selection.rank;  // of the keys that equal the cut, the first ones
  const bool aligned = reinterpret_cast<std::uintptr_t>(source) % 16 == 0;
  for (;;) {
    const std::size_t tile = take_ticket(&selection.emit_ticket, shared_word);
    if (tile * kSelectTile >= n) return;
    Four a[kSelectRows];
    unsigned long long above = 0;  // counts of the rows, 16 bits each
    unsigned long long equal = 0;
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) {
      const std::size_t i = tile * kSelectTile + (r * kThreads + threadIdx.x) * 4;
      const unsigned count = four_of(i, n);
      a[r] = load_four(source + i, count, aligned);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        const std::uint32_t bits = magnitude_bits(a[r].v[j]);
        if (j < count && bits > cut) above += 1ull << (16 * r);
        if (j < count && bits == cut) equal += 1ull << (16 * r);
      }
    }
    unsigned long long above_total = 0;
    unsigned long long equal_total = 0;
    const unsigned long long above_before = scan_block(above, sums, above_total);
    const unsigned long long equal_before = scan_block(equal, tie_sums, equal_total);
    unsigned long long all_above = 0;
    unsigned long long all_equal = 0;
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) {
      all_above += above_total >> (16 * r) & 0xffff;
      all_equal += equal_total >> (16 * r) & 0xffff;
    }
    if (threadIdx.x < kWarp) {
      const unsigned long long start = look_back(task.work.above, tile, all_above);
      if (threadIdx.x == 0) shared_word = start;
    } else if (threadIdx.x < 2 * kWarp) {
      const unsigned long long start = look_back(task.work.ties, tile, all_equal);
      if (threadIdx.x == kWarp) shared_ties = start;
    }
    __syncthreads();
    unsigned long long row_above = shared_word;
    unsigned long long row_equal = shared_ties;
#pragma unroll
    for (unsigned r = 0; r < kSelectRows; ++r) {
      unsigned long long my_above = row_above + (above_before >> (16 * r) & 0xffff);
      unsigned long long my_equal = row_equal + (equal_before >> (16 * r) & 0xffff);
      row_above += above_total >> (16 * r) & 0xffff;
      row_equal += equal_total >> (16 * r) & 0xffff;
      const std::size_t i = tile * kSelectTile + (r * kThreads + threadIdx.x) * 4;
      const unsigned count = four_of(i, n);
#pragma unroll
      for (unsigned j = 0; j < 4; ++j) {
        const std::uint32_t bits = magnitude_bits(a[r].v[j]);
        if (j >= count || bits < cut) continue;
        if (bits > cut || my_equal < ties) {
          const unsigned long long to = my_above + (my_equal < ties ? my_equal : ties);
          const std::uint32_t name = from_all ? static_cast<std::uint32_t>(i + j) : task.work.names[i + j];
          task.indices[to] = name;
          task.values[to] = a[r].v[j];
          if (task.residual != nullptr) task.residual[name] = 0.0f;
        }
        if (bits > cut) {
          ++my_above;
        } else {
          ++my_equal;
        }
      }
    }
  }
}

/// Runs all of it; `zeroed` bytes of the workspace are zeroed first.
template <int = 0>
cudaError_t select(const SelectTask& task, std::size_t zeroed, cudaStream_t stream) {
  cudaError_t error = cudaMemsetAsync(task.work.selection, 0, zeroed, stream);
  if (error != cudaSuccess) return error;
  const auto check = [&error] { return (error = cudaGetLastError()) == cudaSuccess; };
  const unsigned whole = grid_of(task.n, kSelectTile);
  if (task.samples != 0) {
    if (task.sample_all && task.residual != nullptr) {
      PYDEC_LAUNCH(add_kernel<>, grid_of(task.n, kThreads), kThreads, stream)(task.x, task.residual, task.n);
      if (!check()) return error;
    }
    const unsigned grid = grid_of(task.samples, 4 * kThreads);
    PYDEC_LAUNCH(sample_kernel<>, grid_of(task.samples, kThreads), kThreads, stream)(task);
    PYDEC_LAUNCH(radix_kernel<0>, grid, kThreads, stream)(task);
    PYDEC_LAUNCH(radix_kernel<1>, grid, kThreads, stream)(task);
    PYDEC_LAUNCH(radix_kernel<2>, grid, kThreads, stream)(task);
    if (!check()) return error;
  }
  PYDEC_LAUNCH(collect_kernel<>, whole, kThreads, stream)(task);
  PYDEC_LAUNCH(decide_kernel<>, 1u, 1u, stream)(task);
  PYDEC_LAUNCH(radix_kernel<3>, whole, kThreads, stream)(task);
  PYDEC_LAUNCH(radix_kernel<4>, whole, kThreads, stream)(task);
  PYDEC_LAUNCH(radix_kernel<5>, whole, kThreads, stream)(task);
  PYDEC_LAUNCH(emit_kernel<>, whole, kThreads, stream)(task);
  return check() ? cudaSuccess : error;
}

}  // namespace
}  // namespace pydec::cuda
