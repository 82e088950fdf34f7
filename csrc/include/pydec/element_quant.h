// Arithmetic of the blockwise quantisers on single elements, shared by the CPU and CUDA kernels.
//
// A codec turns x of a block into a code and the number `level` that the code stands for; the decoded value
// is scale * level, rounded once. The rules about rounding in pydec/element.h hold here too.
#pragma once

#include "pydec/element.h"

namespace pydec {

/// What a code is. The number is that of the table of kernels, not of the wire.
enum class Codec : int { int8, int4, int2, sign, e4m3, e5m2 };
constexpr int kCodecs = 6;

/// The rule of a block whose largest magnitude has these bits, when the largest level is `top`. As
/// int8_rule, and a block whose largest decoded value would be infinite is bad too.
PYDEC_ELEMENT Int8Rule scale_rule(std::uint32_t largest, float top) {
  const Int8Rule bad = {Int8Kind::bad, float_of(kNaNBits), 0.0f};
  if (largest >= kInfinityBits) return bad;
  const float scale = float_of(largest) / top;
  if (bits_of(scale * top) >= kInfinityBits) return bad;
  if (scale == 0.0f) return {Int8Kind::zero, 0.0f, 0.0f};
  if (scale < kTinyScale) return {Int8Kind::tiny, scale, 1.0f / (scale * kTinyBoost)};
  return {Int8Kind::normal, scale, 1.0f / scale};
}

// The codecs' functions are compiled once per instruction set, so their linkage is internal (cpu/loop.h).
namespace {

/// The integers as wide as a float F. The functions below take one float, or as many as a register has: CPU
/// kernels add the registers (cpu/line.h).
template <class F>
struct IntegersOf;
template <>
struct IntegersOf<float> {
  using Unsigned = std::uint32_t;
  using Signed = std::int32_t;
};
template <class F>
using UnsignedOf = typename IntegersOf<F>::Unsigned;
template <class F>
using SignedOf = typename IntegersOf<F>::Signed;

/// The same bits as a T.
template <class T, class From>
PYDEC_ELEMENT T bits_as(From from) {
  T to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class F>
PYDEC_ELEMENT UnsignedOf<F> words_of(F x) {
  return bits_as<UnsignedOf<F>>(x);
}

/// x in units of a tiny scale, which can have been rounded to a third less: clamped to the largest level.
template <class F>
PYDEC_ELEMENT F tiny_units(F x, float inverse, float top) {
  F y = (x * kTinyBoost) * inverse;
  y = y > top ? F{} + top : y;
  return y < -top ? F{} - top : y;
}

/// Random bits of an element, and what they are counted in: a little less than 2^15, because y = x * (1 /
/// scale) can exceed the top by the four roundings before it.
constexpr int kDrawBits = 15;
constexpr float kDrawUnits = 0x1p15f - 0x1p-7f;

template <class F>
struct Coded {
  UnsignedOf<F> code;  ///< in the low bits; the bits above the codec's may be anything
  F level;
};

/// Signed integers of `width` bits, without the lowest one: levels -top..top.
template <int width>
struct IntCodec {
  static constexpr int kBits = width;
  static constexpr float kTop = static_cast<float>((1 << (width - 1)) - 1);

  /// rint(y), nearest even; |y| < top + 1/2.
  template <class F>
  PYDEC_ELEMENT Coded<F> nearest(F y) {
    const F shifted = y + kRoundMagic;
    return {words_of(shifted), shifted - kRoundMagic};
  }

  /// floor(y + u), u = draw / 2^15 in [0, 1), for z = y * kDrawUnits. In fixed point, so that the expected
  /// level is y, rounded to 2^-15; and kDrawUnits keeps the roundings of y from exceeding the top.
  template <class F>
  PYDEC_ELEMENT Coded<F> stochastic(F z, UnsignedOf<F> draw) {
    constexpr std::uint32_t kMagicBits = 0x4b400000u;  // of kRoundMagic
    const SignedOf<F> floor = bits_as<SignedOf<F>>(words_of(z + kRoundMagic) + draw) >> kDrawBits;
    const UnsignedOf<F> code = bits_as<UnsignedOf<F>>(floor) - (kMagicBits >> kDrawBits);
    return {code, bits_as<F>(code + kMagicBits) - kRoundMagic};
  }

  /// Level of a code.
  PYDEC_ELEMENT float level(std::uint8_t code) {
    return static_cast<float>(static_cast<std::int8_t>(static_cast<std::uint8_t>(code << (8 - width))) >>
                              (8 - width));
  }
};

/// Floats of 8 bits with `mantissa` bits of mantissa and the exponent bias `bias`, with gradual underflow.
template <int mantissa, int bias, int top>
struct Float8Codec {
  static constexpr int kBits = 8;
  static constexpr float kTop = static_cast<float>(top);
  static constexpr int kDrop = 23 - mantissa;                    // mantissa bits that are rounded away
  static constexpr std::uint32_t kRebias = (127u - bias) << 23;  // of a float's bits
  static constexpr std::uint32_t kLeastNormal = kRebias + (1u << 23);
  static constexpr float kStep = 1.0f / static_cast<float>(1u << (bias - 1 + mantissa));  // below the normals
  static constexpr float kStepMagic = static_cast<float>(1 << 23) * kStep;                // has this step

  /// Nearest even; |y| <= top and a few roundings.
  template <class F>
  PYDEC_ELEMENT Coded<F> nearest(F y) {
    using U = UnsignedOf<F>;
    const U bits = words_of(y);
    const U sign = bits & ~kMagnitudeMask;
    const U size = bits & kMagnitudeMask;
    const U even = (size >> kDrop) & 1u;
    const U normal = (size + ((1u << (kDrop - 1)) - 1u) + even) >> kDrop;
    const F shifted = bits_as<F>(size) + kStepMagic;
    const auto small = bits_as<SignedOf<F>>(size) < static_cast<std::int32_t>(kLeastNormal);
    const U code = small ? words_of(shifted) : normal - (kRebias >> kDrop);
    const U level = small ? words_of(shifted - kStepMagic) : normal << kDrop;
    return {(code & 0x7fu) | (sign >> 24), bits_as<F>(level | sign)};
  }

  /// Level of a code.
  PYDEC_ELEMENT float level(std::uint8_t code) { return wide_level<float>(code); }
  /// Of codes 0..255 in integers as wide as floats.
  template <class F>
  PYDEC_ELEMENT F wide_level(UnsignedOf<F> code) {
    // Below the normals, one exponent up is 1 + the fraction, and the difference to 1 is exact.
    using U = UnsignedOf<F>;
    const U size = code & 0x7fu;
    const U sign = (code & 0x80u) << 24;
    const U normal = (size << kDrop) + kRebias;
    const F small = bits_as<F>(normal + (1u << 23)) - float_of(kLeastNormal);
    const auto is_small = bits_as<SignedOf<F>>(size) < (1 << mantissa);
    return bits_as<F>((is_small ? words_of(small) : normal) | sign);
  }
};

/// One bit: set if negative. The scale of a block is its mean magnitude.
struct SignCodec {
  static constexpr int kBits = 1;
  static constexpr float kTop = 1.0f;

  template <class F>
  PYDEC_ELEMENT Coded<F> nearest(F x) {
    const UnsignedOf<F> bits = words_of(x);
    return {bits >> 31, bits_as<F>((bits & ~kMagnitudeMask) | 0x3f800000u)};
  }

  PYDEC_ELEMENT float level(std::uint8_t code) { return float_of((std::uint32_t{code} << 31) | 0x3f800000u); }
};

template <Codec codec>
struct CodecOf;
template <>
struct CodecOf<Codec::int8> : IntCodec<8> {};
template <>
struct CodecOf<Codec::int4> : IntCodec<4> {};
template <>
struct CodecOf<Codec::int2> : IntCodec<2> {};
template <>
struct CodecOf<Codec::sign> : SignCodec {};
template <>
struct CodecOf<Codec::e4m3> : Float8Codec<3, 7, 448> {};
template <>
struct CodecOf<Codec::e5m2> : Float8Codec<2, 15, 57344> {};

/// Nonzero bits where one of the codes in a byte is one that no encoder makes; T is a byte, or many side by
/// side whose comparisons give a mask each. Every code of `sign` is one.
template <Codec codec, class T>
PYDEC_ELEMENT auto invalid_codes(T b) {
  if constexpr (codec == Codec::int8) {
    return b == 0x80;
  } else if constexpr (codec == Codec::int4) {
    return b & ~(b << 1) & ~(b << 2) & ~(b << 3) & 0x88;
  } else if constexpr (codec == Codec::int2) {
    return b & ~(b << 1) & 0xaa;
  } else if constexpr (codec == Codec::e4m3) {
    return (b & 0x7f) == 0x7f;
  } else {
    return (b & 0x7f) >= 0x7c;
  }
}

/// Whether no encoder makes this scale: negative, NaN, infinite, or so large that the top level decodes to
/// infinity. The bits of scales that are not negative are ordered like these.
PYDEC_ELEMENT bool is_bad_scale(float scale, float top) {
  const std::uint32_t bits = bits_of(scale);
  return bits >= kInfinityBits || bits_of(scale * top) >= kInfinityBits;
}

}  // namespace

/// Where the random numbers of a vector come from: 15 bits for every element, from the key and the
/// element's place alone.
struct Draw {
  std::uint64_t key;
  std::uint64_t first;  ///< place of the vector's first element; even
};

constexpr std::uint64_t kDrawGroup = 256;  // pairs of elements that share one 64-bit state

/// Bijection of 64-bit words whose output bits depend on all input bits. Source: Steele, Lea, Flood,
/// "Fast splittable pseudorandom number generators", OOPSLA 2014, the mix64 variant 13 of Stafford.
PYDEC_ELEMENT std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;  // 2^64 over the golden ratio

/// What the states of all groups of a key have in common.
PYDEC_ELEMENT std::uint64_t draw_seed(std::uint64_t key) {
  return mix64(key + kGolden);
}

/// State of a group of pairs.
PYDEC_ELEMENT std::uint64_t draw_state(std::uint64_t seed, std::uint64_t group) {
  return mix64(seed + (group + 1) * kGolden);
}

/// Random bits of pair j of a group: bits 0..14 for its first element, bits 16..30 for the other.
/// Two rounds of multiplication and folding (constants of the low-bias 32-bit hash found by C. Wellons),
/// keyed with one half of the state before and the other between the rounds.
PYDEC_ELEMENT std::uint32_t draw_pair(std::uint32_t low, std::uint32_t high, std::uint32_t j) {
  std::uint32_t h = low + j;
  h = (h ^ (h >> 16)) * 0x21f0aaadu;
  h = h ^ high;
  h = (h ^ (h >> 15)) * 0x735a2d97u;
  return (h ^ (h >> 15)) & 0x7fff7fffu;
}

}  // namespace pydec
