// Codes of 4, 2 and 1 bits in bytes, and back. Bytes in between stay in the first-level cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/loop.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

/// Elements that are coded in one go: a multiple of every group.
constexpr std::size_t kPiece = 1024;

/// Calls visit(index of the block, first element, elements) for pieces of at most kPiece elements.
template <class Visit>
void for_pieces(std::size_t n, std::size_t block, const Visit& visit) noexcept {
  for (std::size_t index = 0, first = 0; first < n; ++index, first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    for (std::size_t i = 0; i < length; i += kPiece) {
      visit(index, first + i, length - i < kPiece ? length - i : kPiece);
    }
  }
}

/// The bytes of a group: one register on every target.
using Lanes = std::uint8_t __attribute__((vector_size(kCodeLanes)));

/// Packs `groups` groups of codes; only the low bits of each are looked at.
template <int bits>
void pack(const std::uint8_t* codes, std::size_t groups, std::uint8_t* out) noexcept {
  constexpr std::size_t kPer = 8 / bits;
  constexpr auto kMask = static_cast<std::uint8_t>((1u << bits) - 1u);
  for (std::size_t g = 0; g < groups; ++g) {
    Lanes packed = {};
    for (std::size_t p = kPer; p-- > 0;) {
      Lanes code;
      __builtin_memcpy(&code, codes + (g * kPer + p) * kCodeLanes, sizeof code);
      packed = (packed << bits) | (code & kMask);
    }
    __builtin_memcpy(out + g * kCodeLanes, &packed, sizeof packed);
  }
}

/// Unpacks `groups` groups, at most kPiece elements, sign-extending integers (bits > 1) to 8 bits.
template <int bits>
void unpack(const std::uint8_t* packed, std::size_t groups, std::uint8_t* out) noexcept {
  constexpr std::size_t kPer = 8 / bits;
  constexpr auto kMask = static_cast<std::uint8_t>((1u << bits) - 1u);
  constexpr auto kSign = static_cast<std::uint8_t>(bits == 1 ? 0u : 1u << (bits - 1));
  for (std::size_t g = 0; g < groups; ++g) {
    Lanes rest;
    __builtin_memcpy(&rest, packed + g * kCodeLanes, sizeof rest);
    for (std::size_t p = 0; p < kPer; ++p, rest >>= bits) {
      const Lanes code = ((rest & kMask) ^ kSign) - kSign;
      __builtin_memcpy(out + (g * kPer + p) * kCodeLanes, &code, sizeof code);
    }
  }
}

/// A code for every byte: `codes` itself where codes are bytes, else unpacked into `room`. `n` elements
/// from `first` on, which starts a group; at most kPiece of them.
template <int bits>
const std::uint8_t* unpacked(const std::uint8_t* codes, std::size_t first, std::size_t n,
                             std::uint8_t* room) noexcept {
  if constexpr (bits == 8) {
    return codes + first;
  } else {
    constexpr std::size_t kGroup = kCodeLanes * 8 / bits;
    unpack<bits>(codes + first / kGroup * kCodeLanes, n / kGroup + (n % kGroup != 0 ? 1 : 0), room);
    return room;
  }
}

}  // namespace
}  // namespace pydec
