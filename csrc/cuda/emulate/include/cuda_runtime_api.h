// Stands in for the CUDA runtime's header when the kernels are compiled for the emulator: the few names that
// launchers and bindings use, with host memory for device memory.
#pragma once

#include <cstddef>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
using cudaStream_t = struct CUstream_st*;

cudaError_t cudaGetLastError() noexcept;
/// What went wrong in the last launch, in full.
const char* cudaGetErrorString(cudaError_t error) noexcept;
cudaError_t cudaGetDeviceCount(int* count) noexcept;
cudaError_t cudaGetDevice(int* device) noexcept;
cudaError_t cudaSetDevice(int device) noexcept;
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) noexcept;
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) noexcept;
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) noexcept;
