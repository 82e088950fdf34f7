// Strictly increasing indices as bit-packed gaps: about log2 of the mean gap plus 3 bits for each.
//
// The gap of index j is index[j] - index[j - 1] - 1, where index[-1] is -1. Gaps lie in groups of 128; the
// width of a group is the number of bits of its largest gap. Bits lie in four lanes: gap i of a group is row
// i / 4 of lane i % 4, a lane's rows follow one another from the low bit up, and every 32 bits of the four
// lanes are 16 bytes. A last group of c gaps ends with the row of its last gap: ceil(ceil(c / 4) * width /
// 32) times 16 bytes. Bits after the last gap are 0. So every sequence has one encoding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

constexpr std::size_t kGapGroup = 128;
constexpr unsigned kMaxGapWidth = 32;

/// Number of groups, each with one byte of width.
PYDEC_ELEMENT std::size_t gap_groups(std::size_t k) {
  return k / kGapGroup + (k % kGapGroup != 0 ? 1 : 0);
}

/// Bytes of a group of `count` gaps.
PYDEC_ELEMENT std::size_t gap_bytes(std::size_t count, unsigned width) {
  return ((count + 3) / 4 * width + 31) / 32 * 16;
}

/// The most bytes that the groups of k <= n indices below n can have: as many groups as possible are as wide
/// as possible, where a width of w needs a gap of 2^(w - 1).
PYDEC_ELEMENT std::size_t gap_bound(std::size_t n, std::size_t k) {
  const std::size_t groups = gap_groups(k);
  if (groups == 0) return 0;
  const std::size_t gaps = n - k;
  std::size_t width = 0;
  std::size_t largest = 0;  // the gap that every group has at this width
  while (width < kMaxGapWidth && groups * (largest == 0 ? 1 : largest * 2) <= gaps) {
    largest = largest == 0 ? 1 : largest * 2;
    ++width;
  }
  const std::size_t left = (gaps - groups * largest) / (largest == 0 ? 1 : largest);
  return 16 * (groups * width + (left < groups ? left : groups));
}

/// Where a group is: so that threads can start anywhere.
struct GapStart {
  std::size_t offset;      ///< of its first byte
  std::uint32_t previous;  ///< the index before its first one
};

/// What check found; 0 is what pack makes of some indices below n.
enum GapFault : unsigned {
  kBadGapLength = 1,  ///< a width above 32, or more or fewer bytes than the widths say
  kBadGapWidth = 2,   ///< a width that is larger than its gaps need, or bits after the last gap
  kBadGapIndex = 4,   ///< an index of n or more
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and outputs
/// do not overlap; nothing is thrown or allocated, and nothing is checked but by `check`.
struct GapKernels {
  /// Whether every index is larger than the one before it.
  bool (*increasing)(const U32* indices, std::size_t k) noexcept;
  /// Writes gap_groups(k) widths and the groups; returns the bytes of the groups, at most gap_bound(n, k).
  std::size_t (*pack)(const U32* indices, std::size_t k, std::uint8_t* widths, std::uint8_t* packed) noexcept;
  /// Faults of `bytes` bytes of groups for k indices below n <= 2^32. `starts`, unless null, has room for one
  /// for each group and is filled as far as there is no fault.
  unsigned (*check)(const std::uint8_t* widths, const std::uint8_t* packed, std::size_t bytes, std::size_t k,
                    std::size_t n, GapStart* starts) noexcept;
  /// One group: its `count` indices, and up to 128 of anything; packed has gap_bytes(count, width) bytes.
  void (*unpack_group)(const std::uint8_t* packed, unsigned width, std::size_t count, std::uint32_t previous,
                       U32* indices) noexcept;
};

}  // namespace pydec
