// The largest of a few keys that lie in the first-level cache, by bisection of their bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/loop.h"
#include "cpu/mask.h"

namespace pydec {
namespace {

/// The k largest keys are those above `key` and the first `ties` that equal it.
struct Largest {
  std::uint32_t key;
  std::size_t ties;
};

/// How many keys, all below 2^31, are at least `bound`.
std::size_t count_from(const std::uint32_t* keys, std::size_t n, std::uint32_t bound) noexcept {
  const auto least = static_cast<std::int32_t>(bound);
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < n; ++i) count += static_cast<std::int32_t>(keys[i]) >= least ? 1u : 0u;
  return count;
}

/// The cut for the k largest of n keys below 2^31, all at least `low`, 1 <= k <= n; `probe` is where it may
/// be.
Largest find_largest(const std::uint32_t* keys, std::size_t n, std::size_t k, std::uint32_t low,
                     std::uint32_t probe) noexcept {
  if (k == n && low > 0) return {low - 1, 0};
  // At least k keys reach `low`, fewer than k reach `high`.
  std::uint32_t high = kMagnitudeMask + 1;
  std::size_t above = 0;
  while (high - low > 1) {
    const std::uint32_t middle = probe > low && probe < high ? probe : low + (high - low) / 2;
    probe = 0;
    const std::size_t count = count_from(keys, n, middle);
    if (count == k) return {middle - 1, 0};  // mostly long before the last bit
    if (count > k) {
      low = middle;
    } else {
      high = middle;
      above = count;
    }
  }
  return {low, k - above};
}

/// Keys and places of the elements of a[0..n), n <= 65,536, whose magnitude reaches `threshold`; returns how
/// many. a = x (residual null) or a = x + residual, which the residual becomes.
std::size_t candidates(const F32* x, F32* residual, std::size_t n, std::uint32_t threshold,
                       std::uint32_t* keys, std::uint16_t* places) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  std::size_t found = 0;
  std::size_t i = 0;
  for (; threshold > 0 && i + kMaskElements <= n; i += kMaskElements) {
    if (residual != nullptr) {
      PYDEC_INDEPENDENT
      for (std::size_t j = 0; j < kMaskElements; ++j) residual[i + j] = x[i + j] + residual[i + j];
    } else {
      prefetch_ahead(x + i, kMaskElements * sizeof(float));
    }
    std::uint64_t mask = mask_of(a + i, threshold);
    // Two are written whether they are there or not: see `collect`. There is room: found <= i.
    for (unsigned entry = 0; entry < 2; ++entry, mask &= mask - 1) {
      const std::size_t at = i + static_cast<std::size_t>(__builtin_ctzll(mask | (std::uint64_t{1} << 63)));
      places[found] = static_cast<std::uint16_t>(at);
      keys[found] = magnitude_bits(a[at]);
      found += mask != 0 ? 1 : 0;
    }
    for (; __builtin_expect(mask != 0, 0); mask &= mask - 1, ++found) {
      const std::size_t at = i + static_cast<std::size_t>(__builtin_ctzll(mask));
      places[found] = static_cast<std::uint16_t>(at);
      keys[found] = magnitude_bits(a[at]);
    }
  }
  if (residual != nullptr) {
    PYDEC_INDEPENDENT
    for (std::size_t j = i; j < n; ++j) residual[j] = x[j] + residual[j];
  }
  for (; i < n; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    places[found] = static_cast<std::uint16_t>(i);
    keys[found] = key;
    found += key >= threshold ? 1 : 0;
  }
  return found;
}

}  // namespace
}  // namespace pydec
