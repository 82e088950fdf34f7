#include "cuda/count.h"
#include "cuda/select.h"
#include "pydec/block_topk.h"

namespace pydec::cuda {
namespace {

std::size_t blocks_of(const BlockTopkShape& shape) {
  return shape.n / shape.block + (shape.n % shape.block != 0 ? 1 : 0);
}

/// A block's place, length and number of entries; entries of block b start at b * shape.k.
struct Block {
  std::size_t first;
  std::size_t length;
  std::size_t k;
};

__device__ Block block_at(const BlockTopkShape& shape, std::size_t b) {
  const std::size_t first = b * shape.block;
  const std::size_t length = shape.n - first < shape.block ? shape.n - first : shape.block;
  return {first, length, block_topk_count(shape.k, shape.block, length)};
}

/// A block of threads for each block, which stays in the caches between the steps.
__global__ void __launch_bounds__(kThreads)
    select_kernel(const float* x, float* residual, const BlockTopkShape shape, std::size_t blocks,
                  std::uint16_t* indices, float* values, Count* bad) {
  PYDEC_SHARED(BlockSelect, shared);
  unsigned found = 0;
  for (std::size_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const Block block = block_at(shape, b);
    const float* a = (residual != nullptr ? residual : x) + block.first;
    for (std::size_t i = threadIdx.x; i < block.length; i += kThreads) {
      float value = x[block.first + i];
      if (residual != nullptr) {
        value = value + residual[block.first + i];
        residual[block.first + i] = value;
      }
      found += magnitude_bits(value) >= kInfinityBits ? 1 : 0;
    }
    const auto emit = [&](unsigned long long j, std::size_t i, float value) {
      indices[b * shape.k + j] = static_cast<std::uint16_t>(i);
      values[b * shape.k + j] = value;
      if (residual != nullptr) residual[block.first + i] = 0.0f;
    };
    // Every thread looks at the elements that it wrote.
    select_in_block([a](std::size_t i) { return a[i]; }, block.length, block.k, shared, emit);
  }
  add_count(found, bad);
}

__global__ void __launch_bounds__(kThreads)
    check_kernel(const std::uint16_t* indices, const BlockTopkShape shape, std::size_t entries,
                 Count* first) {
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t e = std::size_t{blockIdx.x} * kThreads + threadIdx.x; e < entries; e += stride) {
    const std::size_t b = e / shape.k;
    const bool falls = e % shape.k != 0 && indices[e] <= indices[e - 1];
    if (falls || indices[e] >= block_at(shape, b).length) atomicMin(first, static_cast<Count>(b));
  }
}

constexpr std::size_t kMessages = 32;  // that one launch adds

struct Messages {
  const std::uint16_t* indices[kMessages];
  const float* values[kMessages];
  float w[kMessages];
  unsigned m;
};

/// m = 0: the only message is decoded; else the messages are added one after the other.
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ Messages messages, const BlockTopkShape shape, std::size_t blocks,
                  float* out, const Count* first) {
  if (first != nullptr && *first < blocks) return;
  for (std::size_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    const Block block = block_at(shape, b);
    float* to = out + block.first;
    if (messages.m == 0) {
      for (std::size_t i = threadIdx.x; i < block.length; i += kThreads) to[i] = 0.0f;
      __syncthreads();
      for (std::size_t j = threadIdx.x; j < block.k; j += kThreads) {
        to[messages.indices[0][b * shape.k + j]] = messages.values[0][b * shape.k + j];
      }
      continue;
    }
    for (unsigned k = 0; k < messages.m; ++k) {
      for (std::size_t j = threadIdx.x; j < block.k; j += kThreads) {
        const std::size_t at = messages.indices[k][b * shape.k + j];
        const float term = messages.w[k] * messages.values[k][b * shape.k + j];
        to[at] = to[at] + term;
      }
      __syncthreads();
    }
  }
}

bool fits(const BlockTopkShape& shape) {
  return shape.block >= 1 && shape.block <= kMaxTopkBlock && shape.k >= 1 && shape.k <= shape.block;
}

}  // namespace

cudaError_t block_topk_select_f32(const float* x, float* residual, const BlockTopkShape& shape,
                                  std::uint16_t* indices, float* values, Count* bad,
                                  cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  const std::size_t blocks = blocks_of(shape);
  PYDEC_LAUNCH(select_kernel, grid_of(blocks, 1), kThreads, stream)
  (x, residual, shape, blocks, indices, values, bad);
  return cudaGetLastError();
}

cudaError_t block_topk_check(const std::uint16_t* indices, const BlockTopkShape& shape, Count* first,
                             cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  const std::size_t rest = shape.n % shape.block;
  const std::size_t entries = shape.n / shape.block * shape.k + block_topk_count(shape.k, shape.block, rest);
  PYDEC_LAUNCH(check_kernel, grid_of(entries, kThreads), kThreads, stream)(indices, shape, entries, first);
  return cudaGetLastError();
}

cudaError_t block_topk_decode_f32(const std::uint16_t* indices, const float* values,
                                  const BlockTopkShape& shape, float* out, const Count* first,
                                  cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  Messages messages = {};
  messages.indices[0] = indices;
  messages.values[0] = values;
  const std::size_t blocks = blocks_of(shape);
  PYDEC_LAUNCH(decode_kernel, grid_of(blocks, 1), kThreads, stream)(messages, shape, blocks, out, first);
  return cudaGetLastError();
}

cudaError_t block_topk_accumulate_f32(const std::uint16_t* const* indices, const float* const* values,
                                      const float* w, std::size_t m, const BlockTopkShape& shape, float* out,
                                      const Count* first, cudaStream_t stream) noexcept {
  if (!fits(shape)) return cudaErrorInvalidValue;
  if (shape.n == 0) return cudaSuccess;
  const std::size_t blocks = blocks_of(shape);
  for (std::size_t done = 0; done < m; done += kMessages) {
    Messages messages = {};
    messages.m = static_cast<unsigned>(m - done < kMessages ? m - done : kMessages);
    for (unsigned k = 0; k < messages.m; ++k) {
      messages.indices[k] = indices[done + k];
      messages.values[k] = values[done + k];
      messages.w[k] = w[done + k];
    }
    PYDEC_LAUNCH(decode_kernel, grid_of(blocks, 1), kThreads, stream)(messages, shape, blocks, out, first);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace pydec::cuda
