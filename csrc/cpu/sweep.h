// Sparse entries in ascending order go to `out` range by range, so that its lines are fetched once.
#pragma once

#include <cstddef>

#include "pydec/element.h"

namespace pydec {
namespace {

// Entries of one message whose lines of `out` are asked for before they are added to, and a range's share of
// them: lines of the next range arrive while this one is worked on. Measured: ranges of four times as many
// entries take half as long again, and fetching 16 ahead as well.
constexpr std::size_t kEntriesAhead = 64;
constexpr std::size_t kEntriesOfRange = 40;

// A vector is zeroed in pieces of 64 KiB, which are still in the second-level cache when entries come.
constexpr std::size_t kZeroed = std::size_t{1} << 14;

/// Elements of a range of `span` elements in which m messages have `entries` entries: 16 to 256 KiB.
inline std::size_t range_for(std::size_t span, std::size_t entries, std::size_t m) noexcept {
  std::size_t range = std::size_t{1} << 12;
  while (range < (std::size_t{1} << 16) && range * entries < kEntriesOfRange * m * span) range *= 2;
  return range;
}

/// Calls visit(start, end) for the pieces of [first, last).
template <class Visit>
void for_ranges(std::size_t first, std::size_t last, std::size_t range, const Visit& visit) noexcept {
  for (std::size_t start = first; start < last; start += range) {
    visit(start, last - start < range ? last : start + range);
  }
}

/// Asks for what follows `here` by 1 KiB: messages take turns, so the hardware forgets where each one is.
inline void prefetch_turn(const void* here) noexcept {
  const char* from = static_cast<const char*>(here) + 1024;
  for (std::size_t i = 0; i < 512; i += 64) __builtin_prefetch(from + i);
}

/// out[i] += weight * value, rounding after the product and after the sum.
inline void add_entry(F32* out, std::size_t i, float weight, float value) noexcept {
  const float term = weight * value;
  out[i] = out[i] + term;
}

}  // namespace
}  // namespace pydec
