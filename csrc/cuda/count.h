// Counts over a whole launch: whole numbers, so that the order of additions does not matter.
#pragma once

#include "cuda/simt.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

/// Adds a thread's count to a device counter; every thread of the block calls it.
__device__ inline void add_count(unsigned mine, Count* counter) {
  if (counter == nullptr) return;
  Count total = mine;
#pragma unroll
  for (unsigned by = kWarp / 2; by > 0; by /= 2) total += __shfl_down_sync(kFullWarp, total, by);
  if (threadIdx.x % kWarp == 0 && total != 0) atomicAdd(counter, total);
}

}  // namespace
}  // namespace pydec::cuda
