#include "cuda/four.h"
#include "cuda/sums.h"
#include "cuda/table.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

struct Square {
  const float* x;
  __device__ double operator()(std::size_t, std::size_t i, unsigned& bad) const {
    const float value = x[i];
    bad += magnitude_bits(value) >= kInfinityBits ? 1 : 0;
    return value;
  }
};

struct Difference {
  const float* x[kMaxMix];
  const float* y;
  __device__ double operator()(std::size_t k, std::size_t i, unsigned&) const {
    return static_cast<double>(x[k][i]) - static_cast<double>(y[i]);
  }
};

__global__ void __launch_bounds__(kThreads)
    count_kernel(const float* x, std::size_t n, bool aligned, Count* bad) {
  unsigned found = 0;
  const std::size_t stride = std::size_t{gridDim.x} * kTile;
  for (std::size_t i = std::size_t{blockIdx.x} * kTile + threadIdx.x * 4; i < n; i += stride) {
    const Four four = load_four(x + i, four_of(i, n), aligned);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) found += magnitude_bits(four.v[j]) >= kInfinityBits ? 1 : 0;
  }
  add_count(found, bad);
}

}  // namespace

std::size_t sum_work(std::size_t n) noexcept {
  return chunks_of(n);
}

cudaError_t sqnorm_f32(const float* x, std::size_t n, double* out, Count* bad, double* work,
                       cudaStream_t stream) noexcept {
  return sum_squares(Square{x}, n, 1, work, out, bad, stream);
}

cudaError_t sqdists_f32(const float* const* x, std::size_t m, const float* y, std::size_t n, double* out,
                        double* work, cudaStream_t stream) noexcept {
  if (m > kMaxMix) return cudaErrorInvalidValue;
  Difference term = {};
  for (std::size_t k = 0; k < m; ++k) term.x[k] = x[k];
  term.y = y;
  return sum_squares(term, n, m, work, out, nullptr, stream);
}

cudaError_t count_nonfinite_f32(const float* x, std::size_t n, Count* bad, cudaStream_t stream) noexcept {
  if (n == 0) return cudaSuccess;
  PYDEC_LAUNCH(count_kernel, grid_of(tiles_of(n), 1), kThreads, stream)(x, n, aligned_to(16, x), bad);
  return cudaGetLastError();
}

}  // namespace pydec::cuda
