// Sums of doubles over a vector, in the order of pydec/reduce.h.
#pragma once

#include <cstddef>

#include "cuda/count.h"
#include "cuda/grid.h"
#include "cuda/simt.h"
#include "pydec/cuda.h"

namespace pydec::cuda {

constexpr std::size_t kSumLanes = 16;                    // as the CPU: element i goes to lane i mod 16
constexpr std::size_t kSumChunk = std::size_t{1} << 16;  // elements after which the lanes are added

inline std::size_t chunks_of(std::size_t n) {
  return n / kSumChunk + (n % kSumChunk != 0 ? 1 : 0);
}

namespace {

/// parts[k * chunks + c] = sum of chunk c of term k. Half a warp sums one chunk, a lane of the sum each; the
/// sums of a lane are a chain, so it is the number of chunks that fills the GPU.
template <class Term>
__global__ void __launch_bounds__(kThreads)
    chunk_kernel(const __grid_constant__ Term term, std::size_t n, std::size_t chunks, std::size_t terms,
                 double* parts, Count* bad) {
  const unsigned lane = threadIdx.x % kSumLanes;
  const std::size_t total = chunks * terms;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads / kSumLanes;
  unsigned found = 0;
  // Both halves of a warp go round equally often, for the shuffles.
  for (std::size_t at = std::size_t{blockIdx.x} * (kThreads / kSumLanes) + threadIdx.x / kWarp * 2;
       at < total; at += stride) {
    const std::size_t mine = at + threadIdx.x % kWarp / kSumLanes;
    double sum = 0.0;
    if (mine < total) {
      const std::size_t k = mine / chunks;
      const std::size_t first = mine % chunks * kSumChunk;
      const std::size_t end = n - first < kSumChunk ? n : first + kSumChunk;
#pragma unroll 8
      for (std::size_t i = first + lane; i < end; i += kSumLanes) {
        const double value = term(k, i, found);
        sum += value * value;
      }
    }
#pragma unroll
    for (unsigned by = kSumLanes / 2; by > 0; by /= 2) sum += __shfl_down_sync(kFullWarp, sum, by);
    if (lane == 0 && mine < total) parts[mine] = sum;
  }
  add_count(found, bad);
}

/// out[k] = sum of parts[k * chunks ...], left to right; one block for each k.
template <int = 0>
__global__ void __launch_bounds__(kThreads)
    order_kernel(const double* parts, std::size_t chunks, double* out) {
  using Piece = double[kThreads];
  PYDEC_SHARED(Piece, piece);
  const double* mine = parts + blockIdx.x * chunks;
  double total = 0.0;
  for (std::size_t first = 0; first < chunks; first += kThreads) {
    const unsigned count = static_cast<unsigned>(chunks - first < kThreads ? chunks - first : kThreads);
    if (threadIdx.x < count) piece[threadIdx.x] = mine[first + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
      for (unsigned j = 0; j < count; ++j) total += piece[j];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = total;
}

/// out[k] = sum over i of term(k, i, bad)^2, k < terms; n may be 0. `parts` holds terms * chunks_of(n).
template <class Term>
cudaError_t sum_squares(const Term& term, std::size_t n, std::size_t terms, double* parts, double* out,
                        Count* bad, cudaStream_t stream) {
  if (terms == 0) return cudaSuccess;
  const std::size_t chunks = chunks_of(n);
  if (chunks > 0) {
    PYDEC_LAUNCH(chunk_kernel<Term>, grid_of(chunks * terms, kThreads / kSumLanes), kThreads, stream)
    (term, n, chunks, terms, parts, bad);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  PYDEC_LAUNCH(order_kernel<>, static_cast<unsigned>(terms), kThreads, stream)(parts, chunks, out);
  return cudaGetLastError();
}

}  // namespace
}  // namespace pydec::cuda
