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

/// The cut for the k largest of n keys below 2^31, 1 <= k <= n. Takes as long for every order of the keys.
Largest find_largest(const std::uint32_t* keys, std::size_t n, std::size_t k) noexcept {
  std::uint32_t any = 0;
  std::uint32_t all = ~0u;
  for (std::size_t i = 0; i < n; ++i) {
    any |= keys[i];
    all &= keys[i];
  }
  // Bits above the first in which two keys differ are known.
  const std::uint32_t differing = any ^ all;
  const int bits = differing == 0 ? 0 : 32 - __builtin_clz(differing);
  std::uint32_t key = bits == 0 ? all : (all >> bits) << bits;
  for (int bit = bits - 1; bit >= 0; --bit) {
    const std::uint32_t higher = key | (1u << bit);
    if (count_from(keys, n, higher) >= k) key = higher;
  }
  const std::size_t above = key == kMagnitudeMask ? 0 : count_from(keys, n, key + 1);
  return {key, k - above};
}

/// a = x + residual where there is a residual, which becomes a.
void add_to_residual(const F32* x, F32* residual, std::size_t n) noexcept {
  if (residual == nullptr) return;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) residual[i] = x[i] + residual[i];
}

/// Keys and places of the elements of a[0..n), n <= 65,536, whose magnitude reaches `threshold`; returns how
/// many.
std::size_t candidates(const F32* a, std::size_t n, std::uint32_t threshold, std::uint32_t* keys,
                       std::uint16_t* places) noexcept {
  std::size_t found = 0;
  std::size_t i = 0;
  for (; threshold > 0 && i + kMaskElements <= n; i += kMaskElements) {
    for (std::uint64_t mask = mask_of(a + i, threshold); mask != 0; mask &= mask - 1, ++found) {
      const std::size_t at = i + static_cast<std::size_t>(__builtin_ctzll(mask));
      places[found] = static_cast<std::uint16_t>(at);
      keys[found] = magnitude_bits(a[at]);
    }
  }
  for (; i < n; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    if (key < threshold) continue;
    places[found] = static_cast<std::uint16_t>(i);
    keys[found++] = key;
  }
  return found;
}

}  // namespace
}  // namespace pydec
