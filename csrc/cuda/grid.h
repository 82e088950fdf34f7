// Launch shapes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "cuda/simt.h"

namespace pydec::cuda {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarp;
constexpr unsigned kBlocksPerMultiprocessor = 8;  // of 256 threads: all that any GPU so far keeps resident

/// Thread blocks for `items` pieces of work of which one thread block takes `each` at a time: no more than
/// the GPU can hold, because kernels stride over what is left.
inline unsigned grid_of(std::size_t items, std::size_t each) {
  int device = 0;
  int multiprocessors = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
      multiprocessors <= 0) {
    multiprocessors = 128;  // the launch will report what is wrong
  }
  const std::size_t most = static_cast<std::size_t>(multiprocessors) * kBlocksPerMultiprocessor;
  const std::size_t blocks = items / each + (items % each != 0 ? 1 : 0);
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

}  // namespace pydec::cuda
