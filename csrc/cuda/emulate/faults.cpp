// Kernels with a mistake each, to show that the emulator sees it.
#include "cuda/emulate/faults.h"

#include "cuda/four.h"
#include "cuda/simt.h"

namespace pydec::simt {
namespace {

using cuda::kFullWarp;

void divergent_barrier(float*) {
  if (threadIdx.x < 32) __syncthreads();
}

void two_barriers(float*) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

void missing_lane(float* x) {
  if (threadIdx.x % 32 != 5) x[0] = __shfl_xor_sync(kFullWarp, x[0], 1);
}

void mixed_functions(float* x) {
  if (threadIdx.x % 32 < 16) {
    x[0] = __shfl_xor_sync(kFullWarp, x[0], 1);
  } else {
    __syncwarp();
  }
}

void partial_mask(float* x) {
  x[0] = __shfl_xor_sync(0xffffu, x[0], 1);
}

void misaligned(float* x) {
  cuda::store_four({}, x + 1, 4, true);
}

/// Which thread writes last is anybody's guess.
void race(float* x) {
  x[blockIdx.x] = static_cast<float>(threadIdx.x);
}

/// Reads shared memory that nobody wrote.
void garbage(float* x) {
  using Word = std::uint32_t;
  PYDEC_SHARED(Word, word);
  x[0] = word == 0 ? 0.0f : 1.0f;
}

}  // namespace

cudaError_t run_fault(int number, float* x) {
  constexpr void (*kKernels[])(float*) = {divergent_barrier, two_barriers, missing_lane, mixed_functions,
                                          partial_mask,      misaligned,   race,         garbage};
  PYDEC_LAUNCH(kKernels[number], 4u, 64u, nullptr)(x);
  return cudaGetLastError();
}

}  // namespace pydec::simt
