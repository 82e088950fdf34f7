// bfloat16 and float16: half the bytes, every element by itself. And float64, which is narrowed likewise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

using U16 = std::uint16_t __attribute__((aligned(1)));

/// What 16 bits are. The number is that of the table of kernels, not of the wire.
enum class Half : int { bf16, fp16 };
constexpr int kHalves = 2;

/// x rounded to nearest even; magnitudes from the middle above the largest finite number on, and NaN, become
/// codes whose exponent is all ones.
PYDEC_ELEMENT std::uint16_t bf16_code(float x) {
  const std::uint32_t bits = bits_of(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan =
      static_cast<std::int32_t>(bits & kMagnitudeMask) > static_cast<std::int32_t>(kInfinityBits);
  return static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
}

PYDEC_ELEMENT float bf16_value(std::uint16_t code) {
  return float_of(std::uint32_t{code} << 16);
}

PYDEC_ELEMENT std::uint16_t fp16_code(float x) {
  constexpr std::int32_t kLeastNormal = 113 << 23;    // bits of 2^-14
  constexpr std::int32_t kFirstTooLarge = 143 << 23;  // bits of 2^16
  const std::uint32_t sign = (bits_of(x) >> 16) & 0x8000u;
  const auto size = static_cast<std::int32_t>(bits_of(x) & kMagnitudeMask);
  // Adding 2^-1 to what is below the normals leaves multiples of 2^-24 in the low mantissa bits.
  const auto small =
      static_cast<std::int32_t>(bits_of(float_of(static_cast<std::uint32_t>(size)) + 0.5f) & 0x7ffu);
  const std::int32_t normal = ((size + 0xfff + ((size >> 13) & 1)) >> 13) - (112 << 10);
  const std::int32_t special = size > static_cast<std::int32_t>(kInfinityBits) ? 0x7e00 : 0x7c00;
  const std::int32_t finite = size < kLeastNormal ? small : normal;
  return static_cast<std::uint16_t>((size < kFirstTooLarge ? finite : special) |
                                    static_cast<std::int32_t>(sign));
}

PYDEC_ELEMENT float fp16_value(std::uint16_t code) {
  const std::uint32_t sign = (std::uint32_t{code} & 0x8000u) << 16;
  const std::uint32_t size = code & 0x7fffu;
  const std::uint32_t normal = (size << 13) + (112u << 23);
  // Below the normals, one exponent up is 2^-14 (1 + the fraction), and the difference to 2^-14 is exact.
  const float small = float_of(normal + (1u << 23)) - 0x1p-14f;
  const bool is_small = static_cast<std::int32_t>(size) < (1 << 10);
  const std::uint32_t special = static_cast<std::int32_t>(size) < (31 << 10) ? 0u : 112u << 23;
  return float_of(((is_small ? bits_of(small) : normal) + special) | sign);
}

/// One encoded vector and its weight.
struct HalfMessage {
  const U16* codes;
  float weight;
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and
/// outputs do not overlap; nothing is checked, thrown or allocated.
struct CastKernels {
  /// With a = x (residual null) or a = x + residual: codes[i] is a[i] rounded to nearest even. A residual is
  /// overwritten by a - value of the code, or by a where the code is infinite or NaN. Returns how many are.
  std::size_t (*encode_f32[kHalves])(const F32* x, F32* residual, std::size_t n, U16* codes) noexcept;
  /// out[i] = value of codes[i], exactly.
  void (*decode_f32[kHalves])(const U16* codes, std::size_t n, F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * value_k[i], rounding after every product and every
  /// addition. One pass over `out`.
  void (*accumulate_f32[kHalves])(const HalfMessage* messages, std::size_t m, std::size_t n,
                                  F32* out) noexcept;
  /// Codes that are infinite or NaN.
  std::size_t (*count_nonfinite[kHalves])(const U16* codes, std::size_t n) noexcept;
  /// out[i] = x[i] rounded to nearest even, for kernels of float32 that doubles come through.
  void (*narrow_f64)(const F64* x, std::size_t n, F32* out) noexcept;
  /// out[i] = x[i], exactly.
  void (*widen_f64)(const F32* x, std::size_t n, F64* out) noexcept;
};

}  // namespace pydec
