#include "cpu/loop.h"
#include "cpu/pack.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t kWidth = 16;
#elif defined(__AVX__)
constexpr std::size_t kWidth = 8;
#else
constexpr std::size_t kWidth = 4;
#endif
using Floats = float __attribute__((vector_size(kWidth * sizeof(float))));
using Words = std::uint32_t __attribute__((vector_size(kWidth * sizeof(float))));

// Fixed at 16 whatever the register width, because the order of additions must not depend on the CPU.
constexpr std::size_t kSumLanes = 16;
constexpr std::size_t kRegisters = kSumLanes / kWidth;

/// What is encoded: x, or with feedback x + residual, which overwrites the residual.
template <bool feedback>
float element(const F32* x, F32* residual, std::size_t i) noexcept {
  if constexpr (!feedback) return x[i];
  const float a = x[i] + residual[i];
  residual[i] = a;
  return a;
}

template <bool feedback>
std::uint32_t largest_magnitude(const F32* x, F32* residual, std::size_t n) noexcept {
  std::uint32_t largest = 0;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bits = magnitude_bits(element<feedback>(x, residual, i));
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/// Sum of magnitudes: element i goes to lane i mod 16, the lanes are added pairwise.
template <bool feedback>
float sum_of_magnitudes(const F32* x, F32* residual, std::size_t n) noexcept {
  Floats part[kRegisters] = {};
  std::size_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      Floats a;
      __builtin_memcpy(&a, x + i + r * kWidth, sizeof a);
      if constexpr (feedback) {
        Floats e;
        __builtin_memcpy(&e, residual + i + r * kWidth, sizeof e);
        a = a + e;
        __builtin_memcpy(residual + i + r * kWidth, &a, sizeof a);
      }
      part[r] += reinterpret_cast<Floats>(reinterpret_cast<Words>(a) & kMagnitudeMask);
    }
  }
  float lane[kSumLanes];
  __builtin_memcpy(lane, part, sizeof lane);
  for (std::size_t j = 0; i < n; ++i, ++j) {
    lane[j] += float_of(magnitude_bits(element<feedback>(x, residual, i)));
  }
  for (std::size_t half = kSumLanes / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

/// The scale of one block; with feedback, adds x to the residual.
template <Codec codec, bool feedback>
Int8Rule rule_of(const F32* x, F32* residual, std::size_t n) noexcept {
  if constexpr (codec == Codec::sign) {
    const float sum = sum_of_magnitudes<feedback>(x, residual, n);
    if (bits_of(sum) >= kInfinityBits) return {Int8Kind::bad, float_of(kNaNBits), 0.0f};
    return {Int8Kind::normal, sum / static_cast<float>(n), 1.0f};
  } else {
    return scale_rule(largest_magnitude<feedback>(x, residual, n), CodecOf<codec>::kTop);
  }
}

/// One random number, in memory that was written as pairs.
using Half = std::uint16_t __attribute__((may_alias));
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a pair is its first element's");

/// Random bits of `pairs` pairs of elements from pair `start` of the seed's on.
void draw_pairs(std::uint64_t seed, std::uint64_t start, std::size_t pairs, std::uint32_t* out) noexcept {
  while (pairs > 0) {
    const std::uint64_t state = draw_state(seed, start / kDrawGroup);
    const auto low = static_cast<std::uint32_t>(state);
    const auto high = static_cast<std::uint32_t>(state >> 32);
    const auto j = static_cast<std::uint32_t>(start % kDrawGroup);
    const std::size_t left = kDrawGroup - j;
    const auto count = static_cast<std::uint32_t>(pairs < left ? pairs : left);
    for (std::uint32_t p = 0; p < count; ++p) out[p] = draw_pair(low, high, j + p);
    pairs -= count;
    start += count;
    out += count;
  }
}

/// A code for every byte, and with feedback what it leaves; `a` is the residual then.
template <Codec codec, bool feedback, bool tiny, bool stochastic>
void code_piece(const F32* a, std::size_t n, const Int8Rule& rule, const Half* draws, std::uint8_t* codes,
                F32* residual) noexcept {
  using C = CodecOf<codec>;
  constexpr float kUnits = stochastic ? kDrawUnits : 1.0f;
  const float inverse = tiny ? rule.inverse : rule.inverse * kUnits;
  const float scale = rule.scale;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    const float value = a[i];
    const float y = tiny ? tiny_units(value, inverse, C::kTop) * kUnits : value * inverse;
    Coded coded;
    if constexpr (stochastic) {
      coded = C::stochastic(y, draws[i]);
    } else {
      coded = C::nearest(y);
    }
    codes[i] = static_cast<std::uint8_t>(coded.code & 0xffu);
    if constexpr (feedback) residual[i] = value - scale * coded.level;
  }
}

/// One block whose rule is not bad or zero.
template <Codec codec, bool feedback, bool tiny, bool stochastic>
void code_block(const F32* a, std::size_t n, const Int8Rule& rule, const Draw& seed, std::size_t first,
                std::uint8_t* codes, F32* residual) noexcept {
  constexpr int kBits = CodecOf<codec>::kBits;
  constexpr std::size_t kGroup = group_of(codec);
  std::uint32_t pairs[stochastic ? kPiece / 2 : 1];
  const auto* draws = reinterpret_cast<const Half*>(pairs);
  std::uint8_t room[kBits == 8 ? 1 : kPiece];
  for (std::size_t i = 0; i < n; i += kPiece) {
    const std::size_t count = n - i < kPiece ? n - i : kPiece;
    if constexpr (stochastic) draw_pairs(seed.key, (seed.first + first + i) / 2, (count + 1) / 2, pairs);
    F32* left = feedback ? residual + i : nullptr;
    if constexpr (kBits == 8) {
      code_piece<codec, feedback, tiny, stochastic>(a + i, count, rule, draws, codes + i, left);
    } else {
      code_piece<codec, feedback, tiny, stochastic>(a + i, count, rule, draws, room, left);
      const std::size_t groups = count / kGroup + (count % kGroup != 0 ? 1 : 0);
      __builtin_memset(room + count, 0, groups * kGroup - count);
      pack<kBits>(room, groups, codes + i / kGroup * kCodeLanes);
    }
  }
}

template <Codec codec, bool feedback, bool stochastic>
std::size_t encode(const F32* x, F32* residual, std::size_t n, std::size_t block, const Draw* draw,
                   std::uint8_t* codes, F32* scales) noexcept {
  const Draw seed = stochastic ? Draw{draw_seed(draw->key), draw->first} : Draw{0, 0};
  std::size_t bad = 0;
  for (std::size_t first = 0; first < n; first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    F32* left = feedback ? residual + first : nullptr;
    std::uint8_t* out = codes + code_bytes(codec, first);
    prefetch_ahead(x + first, length * sizeof(float));
    if constexpr (feedback) prefetch_ahead(left, length * sizeof(float));
    const Int8Rule rule = rule_of<codec, feedback>(x + first, left, length);
    const F32* a = feedback ? left : x + first;
    *scales++ = rule.scale;
    switch (rule.kind) {
      case Int8Kind::normal:
        code_block<codec, feedback, false, stochastic>(a, length, rule, seed, first, out, left);
        break;
      case Int8Kind::tiny:
        code_block<codec, feedback, true, stochastic>(a, length, rule, seed, first, out, left);
        break;
      default:
        __builtin_memset(out, 0, code_bytes(codec, length));
        bad += rule.kind == Int8Kind::bad ? 1 : 0;
    }
  }
  return bad;
}

template <Codec codec>
std::size_t encode_f32(const F32* x, F32* residual, std::size_t n, std::size_t block, const Draw* draw,
                       std::uint8_t* codes, F32* scales) noexcept {
  if constexpr (codec == Codec::int8 || codec == Codec::int4 || codec == Codec::int2) {
    if (draw != nullptr && residual != nullptr) {
      return encode<codec, true, true>(x, residual, n, block, draw, codes, scales);
    }
    if (draw != nullptr) return encode<codec, false, true>(x, residual, n, block, draw, codes, scales);
  }
  if (residual != nullptr) return encode<codec, true, false>(x, residual, n, block, draw, codes, scales);
  return encode<codec, false, false>(x, residual, n, block, draw, codes, scales);
}

}  // namespace

template <>
const QuantEncoders& table<QuantEncoders, Target::PYDEC_TARGET>() noexcept {
  static constexpr QuantEncoders kernels{.encode_f32 = {encode_f32<Codec::int8>, encode_f32<Codec::int4>,
                                                        encode_f32<Codec::int2>, encode_f32<Codec::sign>,
                                                        encode_f32<Codec::e4m3>, encode_f32<Codec::e5m2>}};
  return kernels;
}

}  // namespace pydec
