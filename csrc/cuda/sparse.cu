#include "cuda/count.h"
#include "cuda/grid.h"
#include "pydec/cuda.h"
#include "pydec/randk.h"

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

constexpr unsigned kHashLanes = 128;  // as the CPU: lane j hashes elements j, j + 128, ...

__global__ void __launch_bounds__(kThreads) add_kernel(const float* x, float* residual, std::size_t n) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    residual[i] = x[i] + residual[i];
  }
}

/// A thread for each lane; the chain is as long as the vector, so nothing more would help.
__global__ void __launch_bounds__(kHashLanes)
    key_kernel(const float* a, std::size_t n, std::uint64_t seed, Count* key, Count* bad) {
  using Lanes = std::uint32_t[kHashLanes];
  PYDEC_SHARED(Lanes, lanes);
  std::uint32_t lane = threadIdx.x;
  unsigned found = 0;
#pragma unroll 16
  for (std::size_t i = threadIdx.x; i < n; i += kHashLanes) {
    const std::uint32_t bits = bits_of(a[i]);
    const std::uint32_t h = (lane ^ bits) * 0x9e3779b1u;
    lane = h ^ (h >> 15);
    found += (bits & kMagnitudeMask) >= kInfinityBits ? 1 : 0;
  }
  lanes[threadIdx.x] = lane;
  add_count(found, bad);
  __syncthreads();
  if (threadIdx.x != 0) return;
  std::uint64_t mixed = mixed_bits(seed + 0x9e3779b97f4a7c15u) ^ n;
  for (unsigned j = 0; j < kHashLanes; ++j) mixed = mixed_bits(mixed + lanes[j]);
  *key = mixed;
}

/// gather: values[e] = x[place] * scale; else x[place] += weight * values[e]. All strata have whole chunks
/// but perhaps the last.
template <bool gather>
__global__ void __launch_bounds__(kThreads)
    places_kernel(RandkShape shape, const Count* key, std::size_t chunks, bool scaled, float weight, float* x,
                  float* values) {
  if (key != nullptr) shape.key = *key;
  const std::size_t entries = shape.k * shape.chunk;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t e = std::size_t{blockIdx.x} * kThreads + threadIdx.x; e < entries; e += stride) {
    std::size_t size = 0;
    const std::size_t place =
        randk_choice(chunks, shape.k, shape.key, e / shape.chunk, size) * shape.chunk + e % shape.chunk;
    if (place >= shape.n) continue;
    if constexpr (gather) {
      values[e] = x[place] * (scaled ? static_cast<float>(size) : 1.0f);
    } else {
      const float term = weight * values[e];
      x[place] = x[place] + term;
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

cudaError_t randk_key_f32(const float* x, float* residual, std::size_t n, std::uint64_t seed, Count* key,
                          Count* bad, cudaStream_t stream) noexcept {
  if (residual != nullptr && n > 0) {
    PYDEC_LAUNCH(add_kernel, grid_of(n, kThreads), kThreads, stream)(x, residual, n);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  PYDEC_LAUNCH(key_kernel, 1u, kHashLanes, stream)(residual != nullptr ? residual : x, n, seed, key, bad);
  return cudaGetLastError();
}

cudaError_t randk_gather_f32(const float* x, const RandkShape& shape, const Count* key, bool scaled,
                             float* values, cudaStream_t stream) noexcept {
  if (shape.chunk == 0 || shape.k > randk_chunks(shape)) return cudaErrorInvalidValue;
  if (shape.k == 0) return cudaSuccess;
  PYDEC_LAUNCH(places_kernel<true>, grid_of(shape.k * shape.chunk, kThreads), kThreads, stream)
  (shape, key, randk_chunks(shape), scaled, 0.0f, const_cast<float*>(x), values);
  return cudaGetLastError();
}

cudaError_t randk_scatter_f32(const float* values, const RandkShape& shape, const Count* key, float weight,
                              float* out, cudaStream_t stream) noexcept {
  if (shape.chunk == 0 || shape.k > randk_chunks(shape)) return cudaErrorInvalidValue;
  if (shape.k == 0) return cudaSuccess;
  PYDEC_LAUNCH(places_kernel<false>, grid_of(shape.k * shape.chunk, kThreads), kThreads, stream)
  (shape, key, randk_chunks(shape), false, weight, out, const_cast<float*>(values));
  return cudaGetLastError();
}

}  // namespace pydec::cuda
