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

/// Calls visit(index of the block, first element, elements) for pieces of at most kDecodePiece elements.
template <class Visit>
void for_pieces(std::size_t n, std::size_t block, const Visit& visit) noexcept {
  for (std::size_t index = 0, first = 0; first < n; ++index, first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    for (std::size_t i = 0; i < length; i += kDecodePiece) {
      visit(index, first + i, length - i < kDecodePiece ? length - i : kDecodePiece);
    }
  }
}

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
    return C::template wide_level<Register>(load_bytes(bytes));
  }
}

/// M messages at one piece of a block.
template <Codec codec, std::size_t M>
struct Piece {
  static constexpr std::size_t kGroup = group_of(codec);
  static constexpr int kPer = static_cast<int>(kGroup / kLine);  // lines of a group

  const std::uint8_t* codes[M];  ///< where the piece starts
  float scale[M];
  float weight[M];

  Piece(const QuantMessage* messages, std::size_t index, std::size_t first) noexcept {
    for (std::size_t k = 0; k < M; ++k) {
      codes[k] = messages[k].codes + first / kGroup * kLine;
      scale[k] = messages[k].scales[index];
      weight[k] = messages[k].weight;
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
            total = total + weight[k] * (scale[k] * levels_of<codec>(codes[k] + g * kLine, p, r));
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
  for (std::size_t g = 0; g < n / kGroup; ++g) {
    for (int p = 0; p < static_cast<int>(kGroup / kLine); ++p) {
      for (std::size_t r = 0; r < kSteps; ++r) {
        store(scale * levels_of<codec>(codes + g * kLine, p, r),
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
