// Levels of codes, a register at a time, and weighted sums of decoded vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/line.h"
#include "cpu/loop.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

/// Elements that are decoded in one go: a multiple of every group, which the first-level cache holds.
constexpr std::size_t kDecodePiece = 1024;
constexpr std::size_t kMessages = 4;  // messages that are read side by side

/// Calls visit(index of the block, first element, elements) for pieces of at most kPiece elements.
template <std::size_t kPiece = kDecodePiece, class Visit>
void for_pieces(std::size_t n, std::size_t block, const Visit& visit) noexcept {
  for (std::size_t index = 0, first = 0; first < n; ++index, first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    for (std::size_t i = 0; i < length; i += kPiece) {
      visit(index, first + i, length - i < kPiece ? length - i : kPiece);
    }
  }
}

#if defined(__F16C__)
/// Levels of e4m3 codes: their bits are a half's with an exponent that is 8 less.
inline Register half_levels(const std::uint8_t* bytes) noexcept {
  constexpr short kBits = static_cast<short>(0xbf80);  // of a sign, 4 bits of exponent and 3 of mantissa
#if defined(__AVX512F__)
  const __m256i top = _mm256_slli_epi16(_mm256_cvtepu8_epi16(load_few<16>(bytes)), 8);
  const __m256i half = _mm256_and_si256(_mm256_srai_epi16(top, 1), _mm256_set1_epi16(kBits));
  return _mm512_maskz_cvtph_ps(0xffff, half) * 0x1p8f;
#else
  const __m128i top = _mm_slli_epi16(_mm_cvtepu8_epi16(load_few<8>(bytes)), 8);
  const __m128i half = _mm_and_si128(_mm_srai_epi16(top, 1), _mm_set1_epi16(kBits));
  return _mm256_cvtph_ps(half) * 0x1p8f;
#endif
}
#endif

/// Levels of a group of 16 bytes: those of line `p` of its elements, register `r`.
template <Codec codec>
Register levels_of(const std::uint8_t* group, int p, std::size_t r) noexcept {
  using C = CodecOf<codec>;
  const std::uint8_t* bytes = group + r * kStep;
  if constexpr (codec == Codec::int8) {
    return __builtin_convertvector(load_signed_bytes(bytes), Register);
  } else if constexpr (codec == Codec::sign) {
    return bits_as<Register>(((load_bytes(bytes) << (31 - p)) & ~kMagnitudeMask) | 0x3f800000u);
  } else if constexpr (C::kBits < 8) {
    const Words top = load_bytes(bytes) << (32 - C::kBits * (p + 1));
    return __builtin_convertvector(bits_as<Integers>(top) >> (32 - C::kBits), Register);
  } else {
#if defined(__F16C__)
    if constexpr (codec == Codec::e4m3) return half_levels(bytes);
#endif
    return C::template wide_level<Register>(load_bytes(bytes));
  }
}

/// What the codes of a block stand for: scale * level, or weight * (scale * level). The latter are looked up
/// where a register holds as many numbers as there are codes; for the former that is no gain.
template <Codec codec, bool weighted>
class Values {
  static constexpr int kBits = CodecOf<codec>::kBits;
#if defined(__AVX512F__)
  static constexpr bool kLooksUp = weighted && kBits < 8;
#elif defined(__AVX2__)
  static constexpr bool kLooksUp = weighted && kBits < 4;
#else
  static constexpr bool kLooksUp = false;
#endif

 public:
  Values() noexcept = default;
  explicit Values(float scale, float weight = 1.0f) noexcept : scale_(scale), weight_(weight) {
    if constexpr (kLooksUp) {
      // Bits above a code's are those of the codes after it.
      Register level;
      for (std::size_t j = 0; j < kStep; ++j) level[j] = CodecOf<codec>::level(static_cast<std::uint8_t>(j));
      table_ = of_levels(level);
    }
  }

  /// Those of line `p` of a group, register `r`.
  Register of(const std::uint8_t* group, int p, std::size_t r) const noexcept {
    if constexpr (kLooksUp) {
      return look_up(load_bytes(group + r * kStep) >> (kBits * p));
    } else {
      return of_levels(levels_of<codec>(group, p, r));
    }
  }

 private:
  Register of_levels(Register level) const noexcept {
    const Register value = scale_ * level;
    if constexpr (weighted) return weight_ * value;
    return value;
  }

  Register look_up(Words index) const noexcept {
#if defined(__AVX512F__)
    return _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(index), table_);
#elif defined(__AVX2__)
    return _mm256_permutevar8x32_ps(table_, reinterpret_cast<__m256i>(index));
#else
    return of_levels(__builtin_convertvector(index, Register));  // not asked for
#endif
  }

  float scale_;
  float weight_;
  Register table_;
};

/// M messages at one piece of a block.
template <Codec codec, std::size_t M>
struct Piece {
  static constexpr std::size_t kGroup = group_of(codec);
  static constexpr int kPer = static_cast<int>(kGroup / kLine);  // lines of a group

  const std::uint8_t* codes[M];  ///< where the piece starts
  Values<codec, true> values[M];

  Piece(const QuantMessage* messages, std::size_t index, std::size_t first) noexcept {
    for (std::size_t k = 0; k < M; ++k) {
      codes[k] = messages[k].codes + first / kGroup * kLine;
      values[k] = Values<codec, true>(messages[k].scales[index], messages[k].weight);
    }
  }

  /// Adds whole groups to n elements.
  void add(std::size_t n, F32* out) const noexcept {
    for (std::size_t g = 0; g < n / kGroup; ++g) {
      for (int p = 0; p < kPer; ++p) {
        for (std::size_t r = 0; r < kSteps; ++r) {
          F32* at = out + g * kGroup + static_cast<std::size_t>(p) * kLine + r * kStep;
          Register total = load(at);
          for (std::size_t k = 0; k < M; ++k) {
            total = total + values[k].of(codes[k] + g * kLine, p, r);
          }
          store(total, at);
        }
      }
    }
  }

  /// Adds to all n elements; the last group may be short.
  void run(std::size_t n, F32* out) noexcept {
    add(n, out);
    const std::size_t whole = n / kGroup * kGroup;
    const std::size_t rest = n - whole;
    if (rest == 0) return;
    float room[kGroup] = {};
    std::uint8_t bytes[M][kLine] = {};
    __builtin_memcpy(room, out + whole, rest * sizeof(float));
    for (std::size_t k = 0; k < M; ++k) {
      __builtin_memcpy(bytes[k], codes[k] + whole / kGroup * kLine, code_bytes(codec, rest));
      codes[k] = bytes[k];
    }
    add(kGroup, room);
    __builtin_memcpy(out + whole, room, rest * sizeof(float));
  }
};

/// Adds m messages, in order, to `n` elements from `first` on, which lie in the block `index`.
template <Codec codec>
void accumulate_piece(const QuantMessage* messages, std::size_t m, std::size_t index, std::size_t first,
                      std::size_t n, F32* out) noexcept {
  std::size_t k = 0;
  for (; m - k >= kMessages; k += kMessages) Piece<codec, kMessages>(messages + k, index, first).run(n, out);
  switch (m - k) {
    case 1:
      return Piece<codec, 1>(messages + k, index, first).run(n, out);
    case 2:
      return Piece<codec, 2>(messages + k, index, first).run(n, out);
    case 3:
      return Piece<codec, 3>(messages + k, index, first).run(n, out);
    default:
      return;
  }
}

/// out[j] = scale * level for whole groups of n elements; `codes` is where they start.
template <Codec codec>
void decode_groups(const std::uint8_t* codes, float scale, std::size_t n, F32* out) noexcept {
  constexpr std::size_t kGroup = group_of(codec);
  const Values<codec, false> values(scale);
  for (std::size_t g = 0; g < n / kGroup; ++g) {
    for (int p = 0; p < static_cast<int>(kGroup / kLine); ++p) {
      for (std::size_t r = 0; r < kSteps; ++r) {
        store(values.of(codes + g * kLine, p, r),
              out + g * kGroup + static_cast<std::size_t>(p) * kLine + r * kStep);
      }
    }
  }
}

/// The same for n elements; the last group may be short.
template <Codec codec>
void decode_piece(const std::uint8_t* codes, float scale, std::size_t n, F32* out) noexcept {
  constexpr std::size_t kGroup = group_of(codec);
  decode_groups<codec>(codes, scale, n, out);
  const std::size_t whole = n / kGroup * kGroup;
  if (whole == n) return;
  float room[kGroup];
  std::uint8_t bytes[kLine] = {};
  __builtin_memcpy(bytes, codes + whole / kGroup * kLine, code_bytes(codec, n - whole));
  decode_groups<codec>(bytes, scale, kGroup, room);
  __builtin_memcpy(out + whole, room, (n - whole) * sizeof(float));
}

}  // namespace
}  // namespace pydec
