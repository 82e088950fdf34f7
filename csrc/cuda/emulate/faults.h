#pragma once

#include <cuda_runtime_api.h>

namespace pydec::simt {

/// Runs one of the kernels of faults.cpp on x, which holds 8 floats and starts at a multiple of 16.
cudaError_t run_fault(int number, float* x);

}  // namespace pydec::simt
