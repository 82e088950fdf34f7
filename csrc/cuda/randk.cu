#include "cuda/count.h"
#include "cuda/grid.h"
#include "pydec/cuda.h"
#include "pydec/randk.h"

namespace pydec::cuda {
namespace {

constexpr unsigned kHashLanes = 128;  // as the CPU: lane j hashes elements j, j + 128, ... of a digest

std::size_t digests_of(std::size_t n) {
  return n == 0 ? 1 : (n + kRandkDigest - 1) / kRandkDigest;
}

/// A block of threads for each digest, a thread for each of its lanes. The residual becomes a.
__global__ void __launch_bounds__(kHashLanes)
    digest_kernel(const float* x, float* residual, std::size_t n, std::uint64_t seed, std::size_t digests,
                  Count* out, Count* bad) {
  using Lanes = std::uint32_t[kHashLanes];
  PYDEC_SHARED(Lanes, lanes);
  unsigned found = 0;
  for (std::size_t digest = blockIdx.x; digest < digests; digest += gridDim.x) {
    const std::size_t first = digest * kRandkDigest;
    const std::size_t end = n - first < kRandkDigest ? n : first + kRandkDigest;
    std::uint32_t lane = threadIdx.x;
#pragma unroll 16
    for (std::size_t i = first + threadIdx.x; i < end; i += kHashLanes) {
      float a = x[i];
      if (residual != nullptr) {
        a = a + residual[i];
        residual[i] = a;
      }
      const std::uint32_t bits = bits_of(a);
      const std::uint32_t h = (lane ^ bits) * 0x9e3779b1u;
      lane = h ^ (h >> 15);
      found += (bits & kMagnitudeMask) >= kInfinityBits ? 1 : 0;
    }
    __syncthreads();
    lanes[threadIdx.x] = lane;
    __syncthreads();
    if (threadIdx.x != 0) continue;
    std::uint64_t mixed = randk_start(seed, n, digest);
    for (unsigned j = 0; j < kHashLanes; ++j) mixed = mixed_bits(mixed + lanes[j]);
    out[digest] = mixed;
  }
  add_count(found, bad);
}

/// The key made of the digests: a chain of them, read ahead by a warp.
__global__ void key_kernel(const Count* digests, std::size_t count, Count* key) {
  std::uint64_t mixed = digests[0];
  for (std::size_t first = 1; first < count; first += kWarp) {
    const std::size_t mine = first + threadIdx.x;
    const Count digest = mine < count ? digests[mine] : 0;
#pragma unroll
    for (unsigned j = 0; j < kWarp; ++j) {
      const std::uint64_t next = __shfl_sync(kFullWarp, digest, j);
      if (first + j < count) mixed = mixed_bits(mixed + next);
    }
  }
  if (threadIdx.x == 0) *key = mixed;
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

std::size_t randk_work(std::size_t n) noexcept {
  return digests_of(n);
}

cudaError_t randk_key_f32(const float* x, float* residual, std::size_t n, std::uint64_t seed, Count* key,
                          Count* bad, Count* work, cudaStream_t stream) noexcept {
  const std::size_t digests = digests_of(n);
  PYDEC_LAUNCH(digest_kernel, grid_of(digests, 1), kHashLanes, stream)
  (x, residual, n, seed, digests, work, bad);
  PYDEC_LAUNCH(key_kernel, 1u, kWarp, stream)(work, digests, key);
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

cudaError_t randk_accumulate_f32(const RandkTerm* terms, std::size_t m, float* out,
                                 cudaStream_t stream) noexcept {
  for (std::size_t k = 0; k < m; ++k) {
    const RandkTerm& term = terms[k];
    const cudaError_t error = randk_scatter_f32(term.values, term.shape, term.key, term.weight, out, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace pydec::cuda
