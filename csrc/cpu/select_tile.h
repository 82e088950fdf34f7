// The largest entries of a tile that lies in the first-level cache: the few that reach a guessed threshold
// are collected, and a bisection cuts them down.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/dct.h"
#include "cpu/loop.h"
#include "cpu/mask.h"
#include "pydec/demo.h"

namespace pydec {
namespace {

/// The k largest magnitudes are those above `key` and the first `ties` that equal it.
struct Largest {
  std::uint32_t key;
  std::size_t ties;
};

std::size_t count_ones(std::uint64_t mask) noexcept {
  return static_cast<std::size_t>(__builtin_popcountll(mask));
}

/// How many of n magnitudes, n a multiple of 64, are at least `bound`.
std::size_t count_from(const float* a, std::size_t n, std::uint32_t bound) noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; i += kMaskElements) count += count_ones(mask_of(a + i, bound));
  return count;
}

/// The cut for the k largest of n magnitudes, n a multiple of 64, all but zeros at least `low`, 1 <= k <= n;
/// `probe` is where it may be.
Largest find_largest(const float* a, std::size_t n, std::size_t k, std::uint32_t low,
                     std::uint32_t probe) noexcept {
  // At least k magnitudes reach `low`, fewer than k reach `high`.
  std::uint32_t high = kMagnitudeMask + 1;
  std::size_t above = 0;
  while (high - low > 1) {
    const std::uint32_t middle = probe > low && probe < high ? probe : low + (high - low) / 2;
    probe = 0;
    const std::size_t count = count_from(a, n, middle);
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

#if defined(__AVX512F__)
/// Elements of a[0..64) whose magnitude reaches `threshold`, and their places, which start at `first`;
/// returns how many. May write anything to the rest of the 64. A loop over bits guesses wrong where it ends,
/// mostly after one: with this and the bisection, encoding went from 6.0 to 9.5 GB/s.
inline std::size_t collect_64(const F32* a, std::size_t first, std::uint32_t threshold, float* values,
                              std::uint32_t* places) noexcept {
  const __m512i bound = _mm512_set1_epi32(static_cast<int>(threshold));
  const __m512i magnitude = _mm512_set1_epi32(static_cast<int>(kMagnitudeMask));
  __m512i place = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first)),
                                   _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  std::size_t found = 0;
  for (std::size_t part = 0; part < 4; ++part) {
    const __m512i bits = _mm512_loadu_si512(a + part * 16);
    const __mmask16 reached = _mm512_cmpge_epi32_mask(_mm512_and_si512(bits, magnitude), bound);
    _mm512_storeu_si512(values + found, _mm512_maskz_compress_epi32(reached, bits));
    _mm512_storeu_si512(places + found, _mm512_maskz_compress_epi32(reached, place));
    found += static_cast<std::size_t>(__builtin_popcount(reached));
    place = _mm512_add_epi32(place, _mm512_set1_epi32(16));
  }
  return found;
}
#else
inline std::size_t collect_64(const F32* a, std::size_t first, std::uint32_t threshold, float* values,
                              std::uint32_t* places) noexcept {
  std::size_t found = 0;
  for (std::uint64_t mask = mask_of(a, threshold); mask != 0; mask &= mask - 1, ++found) {
    const auto at = static_cast<std::size_t>(__builtin_ctzll(mask));
    places[found] = static_cast<std::uint32_t>(first + at);
    values[found] = a[at];
  }
  return found;
}
#endif

/// The elements of a[0..n), n a multiple of 64, whose magnitude reaches `threshold`, and their places;
/// returns how many. Zeros fill up a multiple of 64 of them.
std::size_t candidates(const F32* a, std::size_t n, std::uint32_t threshold, DemoWorkspace& work,
                       Ahead& ahead) noexcept {
  std::size_t found = 0;
  std::size_t i = 0;
  if (threshold == 0) {
    __builtin_memcpy(work.candidates, a, n * sizeof(float));
    for (; i < n; ++i) work.places[i] = static_cast<std::uint32_t>(i);
    found = n;
  }
  for (; i + kMaskElements <= n; i += kMaskElements) {
    ahead.step_x(1);
    ahead.step_residual(1);
    found += collect_64(a + i, i, threshold, work.candidates + found, work.places + found);
  }
  for (std::size_t j = found; j % kMaskElements != 0; ++j) work.candidates[j] = 0.0f;
  return found;
}

// In units of the last place: the first guess for a block is an eighth of an octave below the previous
// block's cut, and each further guess goes down twice as far as the one before.
constexpr std::uint32_t kMargin = 1u << 20;

/// What the next block is searched with. A poor guess costs time and changes no result.
struct Guess {
  std::uint32_t threshold = 0;
};

/// The k largest magnitudes of a[0..n), n a multiple of 64 and 1 <= k <= n, ties to the lowest index and NaN
/// above infinity, to work.indices and work.values, in ascending order of the indices.
void select_tile(const float* a, std::size_t n, std::size_t k, DemoWorkspace& work, Guess& guess,
                 Ahead& ahead) noexcept {
  std::uint32_t threshold = guess.threshold;
  std::size_t found = candidates(a, n, threshold, work, ahead);
  for (std::uint32_t step = kMargin; found < k; step = step * 2) {
    threshold = threshold > step && step < (1u << 26) ? threshold - step : 0;
    found = candidates(a, n, threshold, work, ahead);
  }
  const std::size_t filled = (found + kMaskElements - 1) / kMaskElements * kMaskElements;
  const Largest cut = find_largest(work.candidates, filled, k, threshold, threshold + kMargin);
  std::size_t ties = cut.ties;
  std::size_t to = 0;
  for (std::size_t j = 0; to < k; j += kMaskElements) {
    const std::uint64_t above = cut.key == kMagnitudeMask ? 0 : mask_of(work.candidates + j, cut.key + 1);
    std::uint64_t equal = ties > 0 ? mask_of(work.candidates + j, cut.key) & ~above : 0;
    while (count_ones(equal) > ties) equal &= ~(std::uint64_t{1} << (63 - __builtin_clzll(equal)));
    ties -= count_ones(equal);
    for (std::uint64_t mask = above | equal; mask != 0; mask &= mask - 1, ++to) {
      const std::size_t at = j + static_cast<std::size_t>(__builtin_ctzll(mask));
      work.indices[to] = static_cast<std::uint16_t>(work.places[at]);
      work.values[to] = work.candidates[at];
    }
  }
  // Not above infinity, because what is searched next may be finite.
  const std::uint32_t next = cut.key > kMargin ? cut.key - kMargin : 0;
  guess.threshold = next < kInfinityBits ? next : kInfinityBits;
}

}  // namespace
}  // namespace pydec
