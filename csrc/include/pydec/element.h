// Arithmetic on single elements, shared by the CPU and CUDA kernels so that both give the same bits.
//
// Every operation below is one IEEE binary32 operation, rounded to nearest even. Both compilers are
// told not to contract a product and a sum into one rounding (-ffp-contract=off, -fmad=false).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define PYDEC_ELEMENT __host__ __device__ static inline
#else
#define PYDEC_ELEMENT static inline
#endif

namespace pydec {

/// A float in memory that need not be aligned: arrays may be views into received bytes.
using F32 = float __attribute__((aligned(1)));
using F64 = double __attribute__((aligned(1)));
using U32 = std::uint32_t __attribute__((aligned(1)));

/// The same by the type of the number. A template argument would lose the alignment, so this is a member.
template <class Real>
struct Memory;
template <>
struct Memory<float> {
  using Type = F32;
};
template <>
struct Memory<double> {
  using Type = F64;
};
template <class Real>
using Any = typename Memory<Real>::Type;

constexpr std::uint32_t kMagnitudeMask = 0x7fffffffu;  // all bits of a float but its sign
constexpr std::uint32_t kInfinityBits = 0x7f800000u;   // magnitudes from here on are inf or NaN
constexpr std::uint32_t kNaNBits = 0x7fc00000u;        // the one NaN that a kernel writes itself

PYDEC_ELEMENT std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

PYDEC_ELEMENT float float_of(std::uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

/// |x| as an integer: ordered like |x|, with NaN above infinity.
PYDEC_ELEMENT std::uint32_t magnitude_bits(float x) {
  return bits_of(x) & kMagnitudeMask;
}

/// 1.5 * 2^23: adding it to |y| < 2^22 leaves rint(y), in two's complement, in the low mantissa bits.
constexpr float kRoundMagic = 12582912.0f;

/// Scales below this are divided by after a multiplication of both sides by 2^64, which is exact
/// there, because 1 / scale would overflow.
constexpr float kTinyScale = 0x1p-100f;
constexpr float kTinyBoost = 0x1p64f;

/// What the codes of an int8 block are made with.
enum class Int8Kind {
  normal,  ///< code = rint(x * inverse)
  tiny,    ///< the scale is below kTinyScale: code = rint((x * kTinyBoost) * inverse), clamped
  zero,    ///< the scale is zero: code = 0
  bad,     ///< the block holds a NaN or an infinity: code = 0, scale = NaN
};

struct Int8Rule {
  Int8Kind kind;
  float scale;
  float inverse;
};

/// The rule of a block whose largest magnitude has these bits: codes -127..127 span the block.
PYDEC_ELEMENT Int8Rule int8_rule(std::uint32_t largest) {
  if (largest >= kInfinityBits) return {Int8Kind::bad, float_of(kNaNBits), 0.0f};
  const float scale = float_of(largest) / 127.0f;
  if (scale == 0.0f) return {Int8Kind::zero, 0.0f, 0.0f};
  if (scale < kTinyScale) return {Int8Kind::tiny, scale, 1.0f / (scale * kTinyBoost)};
  return {Int8Kind::normal, scale, 1.0f / scale};
}

/// rint(x * inverse), nearest even; |x * inverse| is at most 127 and a few roundings.
PYDEC_ELEMENT std::int8_t int8_code(float x, float inverse) {
  return static_cast<std::int8_t>(bits_of(x * inverse + kRoundMagic) & 0xffu);
}

/// The same for a tiny scale, which can have been rounded to a third less: the code is clamped.
PYDEC_ELEMENT std::int8_t int8_code_tiny(float x, float inverse) {
  float y = (x * kTinyBoost) * inverse;
  y = y > 127.0f ? 127.0f : y;
  y = y < -127.0f ? -127.0f : y;
  return static_cast<std::int8_t>(bits_of(y + kRoundMagic) & 0xffu);
}

/// Value of an int8 code.
PYDEC_ELEMENT float int8_value(float scale, std::int8_t code) {
  return scale * static_cast<float>(code);
}

}  // namespace pydec
