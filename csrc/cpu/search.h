// The k-th largest of many magnitudes: eight-way search over their bits, which vectorises where a histogram
// does not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/loop.h"
#include "cpu/mask.h"
#include "pydec/topk.h"

namespace pydec {
namespace {

/// The k largest magnitudes are those above `key` and the first `ties` that equal it.
struct Cut {
  std::uint32_t key;
  std::size_t ties;
};

constexpr unsigned kPivots = 7;

/// counts[p] = how many magnitudes are at least low + (p + 1) * step.
void count_from_pivots(const F32* a, std::size_t n, std::uint32_t low, std::uint32_t step,
                       std::uint32_t* counts) noexcept {
  std::int32_t pivot[kPivots];
  std::uint32_t count[kPivots] = {};
  for (unsigned p = 0; p < kPivots; ++p) pivot[p] = static_cast<std::int32_t>(low + (p + 1) * step);
  for (std::size_t i = 0; i < n; ++i) {
    const auto key = static_cast<std::int32_t>(magnitude_bits(a[i]));
    for (unsigned p = 0; p < kPivots; ++p) count[p] += key >= pivot[p] ? 1u : 0u;
  }
  for (unsigned p = 0; p < kPivots; ++p) counts[p] = count[p];
}

/// How many magnitudes are at least `bound`, at most 2^31.
std::size_t count_from(const F32* a, std::size_t n, std::uint32_t bound) noexcept {
  if (bound >= kAboveAll) return 0;
  const auto least = static_cast<std::int32_t>(bound);
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    count += static_cast<std::int32_t>(magnitude_bits(a[i])) >= least ? 1u : 0u;
  }
  return count;
}

/// Copies the elements whose magnitude lies in the bracket, in order; `out` may be `a`. Returns how many.
std::size_t keep_bracket(const F32* a, std::size_t n, Bracket bracket, F32* out) noexcept {
  std::size_t found = 0;
  std::size_t i = 0;
  for (; i + kMaskElements <= n && bracket.low > 0; i += kMaskElements) {
    std::uint64_t mask = mask_of(a + i, bracket.low);
    if (bracket.high < kAboveAll) mask &= ~mask_of(a + i, bracket.high);
    for (; mask != 0; mask &= mask - 1) out[found++] = a[i + static_cast<std::size_t>(__builtin_ctzll(mask))];
  }
  for (; i < n; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    if (key >= bracket.low && key < bracket.high) out[found++] = a[i];
  }
  return found;
}

/// Cut for the k largest of n < 2^32 magnitudes, k >= 1: at least k reach bracket.low and fewer than k reach
/// bracket.high. `room` is null or has room for n / 4 elements, which spares most of the later passes.
Cut find_cut(const F32* a, std::size_t n, std::size_t k, Bracket bracket, F32* room) noexcept {
  std::size_t above = count_from(a, n, bracket.high);
  while (bracket.high - bracket.low > 1) {
    const std::uint32_t width = bracket.high - bracket.low;
    const std::uint32_t step = width <= kPivots + 1 ? 1 : (width + kPivots) / (kPivots + 1);
    std::uint32_t counts[kPivots];
    count_from_pivots(a, n, bracket.low, step, counts);
    std::size_t inside = n;
    for (unsigned p = 0; p < kPivots; ++p) {
      const std::uint32_t pivot = bracket.low + step;
      if (pivot >= bracket.high) break;
      if (counts[p] < k) {
        above = counts[p];
        bracket.high = pivot;
        break;
      }
      inside = counts[p];
      bracket.low = pivot;
    }
    if (room != nullptr && inside - above <= n / 4) {
      n = keep_bracket(a, n, bracket, room);
      a = room;
      k -= above;
      above = 0;
    }
  }
  return {bracket.low, k - above};
}

}  // namespace
}  // namespace pydec
