// CUDA launchers. Each takes a stream, returns at once, handles n = 0, throws nothing, and gives the
// bits of its CPU kernel: both are built on pydec/element.h, in the same order, without contraction.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace pydec::cuda {

/// Vectors that one launch of mix_f32 reads. More would not fit in a kernel's parameters.
constexpr std::size_t kMaxMix = 64;

/// Contract of every launcher: device pointers, aligned to their element, valid for the stated
/// length until the stream has passed; overlap as in the CPU contract. The result is the launch's
/// error; cudaErrorInvalidValue if an argument is out of range.

/// As MixKernels::mix_f32, for 1 <= m <= kMaxMix. `x` and `w` are host arrays, read before returning.
cudaError_t mix_f32(const float* const* x, const float* w, std::size_t m, float* out, std::size_t n,
                    cudaStream_t stream) noexcept;

/// As Int8Kernels::encode_f32; `bad` is a device counter to which the number of blocks with a NaN or
/// an infinity is added, or null.
cudaError_t int8_encode_f32(const float* x, std::size_t n, std::size_t block, std::int8_t* codes,
                            float* scales, std::uint32_t* bad, cudaStream_t stream) noexcept;

/// As Int8Kernels::decode_f32.
cudaError_t int8_decode_f32(const std::int8_t* codes, const float* scales, std::size_t n, std::size_t block,
                            float* out, cudaStream_t stream) noexcept;

}  // namespace pydec::cuda
