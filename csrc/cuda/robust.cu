#include <utility>

#include "cuda/grid.h"
#include "cuda/simt.h"
#include "pydec/cuda.h"
#include "pydec/network.h"
#include "pydec/robust.h"

namespace pydec::cuda {
namespace {

template <std::size_t most>
struct Vectors {
  const float* x[most];
  unsigned n;
};

/// A NaN counts as +infinity.
__device__ float ordered(float x) {
  const float infinity = float_of(kInfinityBits);
  return x < infinity ? x : infinity;
}

__device__ float lower(float a, float b) {
  return a < b ? a : b;
}
__device__ float higher(float a, float b) {
  return a > b ? a : b;
}
__device__ float nearer(float low, float high, float centre) {
  return centre - low > high - centre ? high : low;
}

// A rule turns n sorted values into one: s(k) is the k-th, `all` visits every k in a way that keeps values in
// registers where they are.
struct Median {
  template <class Sorted>
  __device__ float operator()(const Sorted& s, unsigned n) const {
    const float upper = s(n / 2);
    return (n % 2 != 0 ? upper : 0.5f * s(n / 2 - 1) + 0.5f * upper) + 0.0f;
  }
};

struct TrimmedMean {
  unsigned f;
  template <class Sorted>
  __device__ float operator()(const Sorted& s, unsigned n) const {
    float total = 0.0f;
    s.each([&](unsigned k, float value) {
      if (k >= f && k < n - f) total = k == f ? value : total + value;
    });
    return total / static_cast<float>(n - 2 * f) + 0.0f;
  }
};

struct MeanAroundMedian {
  unsigned f;
  template <class Sorted>
  __device__ float operator()(const Sorted& s, unsigned n) const {
    const unsigned m = n - f;
    const float upper = s(n / 2);
    const float centre = n % 2 != 0 ? upper : 0.5f * s(n / 2 - 1) + 0.5f * upper;
    float total = 0.0f;
    for (unsigned k = 0; k < f; ++k) {
      const float value = nearer(s(k), s(k + m), centre);
      total = k == 0 ? value : total + value;
    }
    for (unsigned k = f; k < m; ++k) total = k == 0 ? s(k) : total + s(k);
    return total / static_cast<float>(m) + 0.0f;
  }
};

template <std::size_t N>
struct InRegisters {
  float v[N];

  static constexpr Network kNetwork = network_of(N);
  static_assert(network::sorts(kNetwork, N));

  template <std::size_t low, std::size_t high>
  __device__ void exchange() {
    const float a = v[low];
    v[low] = lower(a, v[high]);
    v[high] = higher(a, v[high]);
  }

  template <std::size_t... I>
  __device__ void sort(std::index_sequence<I...>) {
    (exchange<kNetwork.at[I].low, kNetwork.at[I].high>(), ...);
  }

  __device__ void sort() { sort(std::make_index_sequence<kNetwork.size>()); }
  __device__ float operator()(unsigned k) const { return v[k]; }

  template <class Visit>
  __device__ void each(const Visit& visit) const {
#pragma unroll
    for (unsigned k = 0; k < N; ++k) visit(k, v[k]);
  }
};

/// A thread for each element: its values are read side by side and sorted in registers.
template <std::size_t N, class Rule>
__global__ void __launch_bounds__(kThreads)
    network_kernel(const __grid_constant__ Vectors<N> vectors, std::size_t d, const Rule rule, float* out) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < d; i += stride) {
    InRegisters<N> sorted;
#pragma unroll
    for (unsigned k = 0; k < N; ++k) sorted.v[k] = ordered(vectors.x[k][i]);
    sorted.sort();
    out[i] = rule(sorted, N);
  }
}

constexpr unsigned kColumns = kWarp;             // elements that a block of threads sorts at a time
constexpr unsigned kRows = kThreads / kColumns;  // threads for each of them

struct InShared {
  const float (*rows)[kColumns];
  unsigned n;
  __device__ float operator()(unsigned k) const { return rows[k][threadIdx.x % kColumns]; }

  template <class Visit>
  __device__ void each(const Visit& visit) const {
    for (unsigned k = 0; k < n; ++k) visit(k, (*this)(k));
  }
};

/// For more than 16 vectors: Batcher's network from row to row of shared memory.
template <class Rule>
__global__ void __launch_bounds__(kThreads) merge_kernel(const __grid_constant__ Vectors<kMaxRobust> vectors,
                                                         std::size_t d, const Rule rule, float* out) {
  using Rows = float[kMaxRobust][kColumns];
  PYDEC_SHARED(Rows, rows);
  const unsigned n = vectors.n;
  const unsigned column = threadIdx.x % kColumns;
  const unsigned row = threadIdx.x / kColumns;
  const std::size_t stride = std::size_t{gridDim.x} * kColumns;
  for (std::size_t first = std::size_t{blockIdx.x} * kColumns; first < d; first += stride) {
    const std::size_t i = first + column;
    for (unsigned k = row; k < n; k += kRows) rows[k][column] = i < d ? ordered(vectors.x[k][i]) : 0.0f;
    __syncthreads();
    // The comparators of pydec/network.h's batcher(n, 1), those of a step side by side.
    for (unsigned p = 1; p < n; p *= 2) {
      for (unsigned k = p; k > 0; k /= 2) {
        for (unsigned t = row;; t += kRows) {
          const unsigned low = k % p + t / k * 2 * k + t % k;
          if (low + k >= n) break;
          if (low / (2 * p) == (low + k) / (2 * p)) {
            const float a = rows[low][column];
            const float b = rows[low + k][column];
            rows[low][column] = lower(a, b);
            rows[low + k][column] = higher(a, b);
          }
        }
        __syncthreads();
      }
    }
    if (row == 0 && i < d) out[i] = rule(InShared{rows, n}, n);
    __syncthreads();
  }
}

template <std::size_t N, class Rule>
void launch(const float* const* x, std::size_t d, const Rule& rule, float* out, cudaStream_t stream) {
  Vectors<N> vectors = {};
  for (std::size_t k = 0; k < N; ++k) vectors.x[k] = x[k];
  vectors.n = N;
  constexpr auto kernel = network_kernel<N, Rule>;
  PYDEC_LAUNCH(kernel, grid_of(d, kThreads), kThreads, stream)(vectors, d, rule, out);
}

template <class Rule, std::size_t... N>
void launch_network(std::size_t n, const float* const* x, std::size_t d, const Rule& rule, float* out,
                    cudaStream_t stream, std::index_sequence<N...>) {
  ((n == N + 1 ? launch<N + 1>(x, d, rule, out, stream) : void()), ...);
}

template <class Rule>
cudaError_t robust(const float* const* x, std::size_t n, const Rule& rule, float* out, std::size_t d,
                   cudaStream_t stream) {
  if (n == 0 || n > kMaxRobust) return cudaErrorInvalidValue;
  if (d == 0) return cudaSuccess;
  if (n <= kMaxNetwork) {
    launch_network(n, x, d, rule, out, stream, std::make_index_sequence<kMaxNetwork>());
    return cudaGetLastError();
  }
  Vectors<kMaxRobust> vectors = {};
  for (std::size_t k = 0; k < n; ++k) vectors.x[k] = x[k];
  vectors.n = static_cast<unsigned>(n);
  PYDEC_LAUNCH(merge_kernel<Rule>, grid_of(d, kColumns), kThreads, stream)(vectors, d, rule, out);
  return cudaGetLastError();
}

}  // namespace

cudaError_t median_f32(const float* const* x, std::size_t n, float* out, std::size_t d,
                       cudaStream_t stream) noexcept {
  return robust(x, n, Median(), out, d, stream);
}

cudaError_t trimmed_mean_f32(const float* const* x, std::size_t n, std::size_t f, float* out, std::size_t d,
                             cudaStream_t stream) noexcept {
  if (2 * f >= n) return cudaErrorInvalidValue;
  return robust(x, n, TrimmedMean{static_cast<unsigned>(f)}, out, d, stream);
}

cudaError_t mean_around_median_f32(const float* const* x, std::size_t n, std::size_t f, float* out,
                                   std::size_t d, cudaStream_t stream) noexcept {
  if (2 * f >= n) return cudaErrorInvalidValue;
  return robust(x, n, MeanAroundMedian{static_cast<unsigned>(f)}, out, d, stream);
}

}  // namespace pydec::cuda
