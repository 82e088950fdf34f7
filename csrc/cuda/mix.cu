#include "cuda/grid.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

struct Terms {
  const float* x[kMaxMix];
  float w[kMaxMix];
};

__global__ void __launch_bounds__(kThreads) mix_kernel(Terms terms, unsigned m, float* out, std::size_t n) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    float total = terms.w[0] * terms.x[0][i];
    for (unsigned k = 1; k < m; ++k) total = total + terms.w[k] * terms.x[k][i];
    out[i] = total;
  }
}

}  // namespace

cudaError_t mix_f32(const float* const* x, const float* w, std::size_t m, float* out, std::size_t n,
                    cudaStream_t stream) noexcept {
  if (m == 0 || m > kMaxMix) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  Terms terms = {};
  for (std::size_t k = 0; k < m; ++k) {
    terms.x[k] = x[k];
    terms.w[k] = w[k];
  }
  mix_kernel<<<grid_of(n, kThreads), kThreads, 0, stream>>>(terms, static_cast<unsigned>(m), out, n);
  return cudaGetLastError();
}

}  // namespace pydec::cuda
