#include "cuda/codes.h"
#include "cuda/grid.h"
#include "cuda/sums.h"
#include "pydec/cuda.h"

namespace pydec::cuda {
namespace {

/// The differences of decoded elements and x. Lane i mod 16 of a sum reads byte i mod 16 of every group.
template <Codec codec>
struct Difference {
  using C = CodecOf<codec>;
  static constexpr std::size_t kLayers = layers_of(C::kBits);

  const std::uint8_t* codes;
  const float* scales;
  const float* x;
  Divisor groups_of_block;

  __device__ double operator()(std::size_t, std::size_t i, unsigned&) const {
    const std::size_t group = i / (16 * kLayers);
    const auto layer = static_cast<unsigned>(i / 16 % kLayers);
    const std::uint8_t code = code_in<C::kBits>(codes[group * 16 + i % 16], layer, 0);
    const float value = scales[divide(group, groups_of_block)] * C::level(code);
    return static_cast<double>(value) - static_cast<double>(x[i]);
  }
};

template <Codec codec>
cudaError_t sqdist(const std::uint8_t* codes, const float* scales, const float* x, std::size_t n,
                   std::size_t block, double* out, double* work, cudaStream_t stream) {
  const Difference<codec> term{codes, scales, x, divisor_of(block / group_of(codec))};
  return sum_squares(term, n, 1, work, out, nullptr, stream);
}

template <Codec codec>
__global__ void __launch_bounds__(kThreads)
    check_kernel(const std::uint8_t* codes, const float* scales, std::size_t n, std::size_t blocks,
                 unsigned* faults) {
  using C = CodecOf<codec>;
  constexpr std::size_t kGroup = 16 * layers_of(C::kBits);
  unsigned found = 0;
  const std::size_t start = std::size_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::size_t stride = std::size_t{gridDim.x} * kThreads;
  for (std::size_t b = start; b < blocks; b += stride) {
    if (is_bad_scale(scales[b], C::kTop)) found |= kBadScale;
  }
  const std::size_t bytes = C::kBits == 8 ? n : (n + kGroup - 1) / kGroup * 16;
  for (std::size_t at = start; at < bytes; at += stride) {
    const unsigned code = codes[at];
    if constexpr (codec != Codec::sign) {
      if (invalid_codes<codec>(code)) found |= kBadCode;
    }
    if constexpr (C::kBits < 8) {
      const std::size_t first = at / 16 * kGroup + at % 16;
#pragma unroll
      for (unsigned layer = 0; layer < layers_of(C::kBits); ++layer) {
        if (first + 16 * layer >= n && (code_in<C::kBits>(code, layer, 0) != 0)) found |= kBadPadding;
      }
    }
  }
  if (found != 0) atomicOr(faults, found);
}

template <Codec codec>
cudaError_t check(const std::uint8_t* codes, const float* scales, std::size_t n, std::size_t block,
                  unsigned* faults, cudaStream_t stream) {
  const std::size_t blocks = n / block + (n % block != 0 ? 1 : 0);
  PYDEC_LAUNCH(check_kernel<codec>, grid_of(code_bytes(codec, n), kThreads), kThreads, stream)
  (codes, scales, n, blocks, faults);
  return cudaGetLastError();
}

using Sqdist = cudaError_t (*)(const std::uint8_t*, const float*, const float*, std::size_t, std::size_t,
                               double*, double*, cudaStream_t);
using Check = cudaError_t (*)(const std::uint8_t*, const float*, std::size_t, std::size_t, unsigned*,
                              cudaStream_t);
constexpr Sqdist kSqdist[kCodecs] = PYDEC_EACH_CODEC(sqdist);
constexpr Check kCheck[kCodecs] = PYDEC_EACH_CODEC(check);

}  // namespace

cudaError_t quant_sqdist_f32(Codec codec, const std::uint8_t* codes, const float* scales, const float* x,
                             std::size_t n, std::size_t block, double* out, double* work,
                             cudaStream_t stream) noexcept {
  if (block == 0 || block % group_of(codec) != 0) return cudaErrorInvalidValue;
  return kSqdist[static_cast<int>(codec)](codes, scales, x, n, block, out, work, stream);
}

cudaError_t quant_check(Codec codec, const std::uint8_t* codes, const float* scales, std::size_t n,
                        std::size_t block, unsigned* faults, cudaStream_t stream) noexcept {
  if (block == 0 || block % group_of(codec) != 0) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return kCheck[static_cast<int>(codec)](codes, scales, n, block, faults, stream);
}

}  // namespace pydec::cuda
