#include "cuda/grid.h"
#include "pydec/cuda.h"
#include "pydec/element.h"

namespace pydec::cuda {
namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kWarps = kThreads / kWarp;

std::size_t blocks_of(std::size_t n, std::size_t block) {
  return n / block + (n % block != 0 ? 1 : 0);
}

__device__ std::int8_t code_of(const Int8Rule& rule, float x) {
  if (rule.kind == Int8Kind::normal) return int8_code(x, rule.inverse);
  return rule.kind == Int8Kind::tiny ? int8_code_tiny(x, rule.inverse) : std::int8_t{0};
}

/// One warp for each block: the largest magnitude by shuffles, then the codes.
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const float* x, std::size_t n, std::size_t block, std::size_t blocks, std::int8_t* codes,
                  float* scales, std::uint32_t* bad) {
  const unsigned lane = threadIdx.x % kWarp;
  const std::size_t stride = std::size_t{gridDim.x} * kWarps;
  for (std::size_t b = std::size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; b < blocks; b += stride) {
    const std::size_t first = b * block;
    const std::size_t end = n - first < block ? n : first + block;
    std::uint32_t largest = 0;
    for (std::size_t i = first + lane; i < end; i += kWarp) {
      const std::uint32_t bits = magnitude_bits(x[i]);
      largest = bits > largest ? bits : largest;
    }
    for (unsigned step = kWarp / 2; step > 0; step /= 2) {
      const std::uint32_t other = __shfl_xor_sync(0xffffffffu, largest, step);
      largest = other > largest ? other : largest;
    }
    const Int8Rule rule = int8_rule(largest);
    if (lane == 0) {
      scales[b] = rule.scale;
      if (rule.kind == Int8Kind::bad && bad != nullptr) atomicAdd(bad, 1u);
    }
    for (std::size_t i = first + lane; i < end; i += kWarp) codes[i] = code_of(rule, x[i]);
  }
}

__global__ void __launch_bounds__(kThreads) decode_kernel(const std::int8_t* codes, const float* scales,
                                                          std::size_t n, std::size_t block, float* out) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t i = std::size_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += stride) {
    out[i] = int8_value(scales[i / block], codes[i]);
  }
}

}  // namespace

cudaError_t int8_encode_f32(const float* x, std::size_t n, std::size_t block, std::int8_t* codes,
                            float* scales, std::uint32_t* bad, cudaStream_t stream) noexcept {
  if (block == 0) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  const std::size_t blocks = blocks_of(n, block);
  encode_kernel<<<grid_of(blocks, kWarps), kThreads, 0, stream>>>(x, n, block, blocks, codes, scales, bad);
  return cudaGetLastError();
}

cudaError_t int8_decode_f32(const std::int8_t* codes, const float* scales, std::size_t n, std::size_t block,
                            float* out, cudaStream_t stream) noexcept {
  if (block == 0) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  decode_kernel<<<grid_of(n, kThreads), kThreads, 0, stream>>>(codes, scales, n, block, out);
  return cudaGetLastError();
}

}  // namespace pydec::cuda
