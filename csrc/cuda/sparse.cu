#include "cuda/count.h"
#include "cuda/grid.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

__global__ void __launch_bounds__(kThreads)
    check_kernel(const std::uint32_t* indices, std::size_t k, std::size_t n, Count* faults) {
  unsigned found = 0;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t j = std::size_t{blockIdx.x} * kThreads + threadIdx.x; j < k; j += stride) {
    const std::uint32_t index = indices[j];
    if (index >= n || (j > 0 && index <= indices[j - 1])) ++found;
  }
  add_count(found, faults);
}

__global__ void __launch_bounds__(kThreads) zero_kernel(float* out, std::size_t n, const Count* faults) {
  if (faults != nullptr && *faults != 0) return;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) out[i] = 0.0f;
}

/// No index occurs twice, so the entries are independent.
template <bool add>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const std::uint32_t* indices, const float* values, std::size_t k, float weight, float* out,
                   const Count* faults) {
  if (faults != nullptr && *faults != 0) return;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t j = std::size_t{blockIdx.x} * kThreads + threadIdx.x; j < k; j += stride) {
    if constexpr (add) {
      const float term = weight * values[j];
      out[indices[j]] = out[indices[j]] + term;
    } else {
      out[indices[j]] = values[j];
    }
  }
}

}  // namespace

cudaError_t scatter_check(const std::uint32_t* indices, std::size_t k, std::size_t n, Count* faults,
                          cudaStream_t stream) noexcept {
  if (k == 0) return cudaSuccess;
  PYDEC_LAUNCH(check_kernel, grid_of(k, kThreads), kThreads, stream)(indices, k, n, faults);
  return cudaGetLastError();
}

cudaError_t scatter_f32(const std::uint32_t* indices, const float* values, std::size_t k, float weight,
                        float* out, const Count* faults, cudaStream_t stream) noexcept {
  if (k == 0) return cudaSuccess;
  PYDEC_LAUNCH(scatter_kernel<true>, grid_of(k, kThreads), kThreads, stream)
  (indices, values, k, weight, out, faults);
  return cudaGetLastError();
}

cudaError_t sparse_decode_f32(const std::uint32_t* indices, const float* values, std::size_t k, float* out,
                              std::size_t n, const Count* faults, cudaStream_t stream) noexcept {
  if (n == 0) return cudaSuccess;
  PYDEC_LAUNCH(zero_kernel, grid_of(n, kThreads), kThreads, stream)(out, n, faults);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || k == 0) return error;
  PYDEC_LAUNCH(scatter_kernel<false>, grid_of(k, kThreads), kThreads, stream)
  (indices, values, k, 0.0f, out, faults);
  return cudaGetLastError();
}

}  // namespace pydec::cuda
