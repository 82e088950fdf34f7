// Selection over a whole vector: a sampled threshold, one pass that collects, and an exact radix cut.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/loop.h"
#include "cpu/mask.h"

namespace pydec {
namespace {

constexpr std::size_t kLine = 16;  // float32 elements of a cache line
constexpr std::size_t kOverflow = ~std::size_t{0};

/// The k largest magnitudes are those above `key` and the first `ties` that equal it.
struct Cut {
  std::uint32_t key;
  std::size_t ties;
};

/// Counts of one digit; four tables, so that equal neighbours do not wait for each other's store.
struct Histogram {
  static constexpr std::size_t kTables = 4;
  static constexpr std::size_t kDigits = 2048;
  std::uint32_t count[kTables][kDigits];

  void clear() noexcept { __builtin_memset(count, 0, sizeof count); }

  /// Moves from the top digit down to the one that holds the rank-th key; rank becomes the rank within it.
  std::uint32_t find(std::uint32_t digits, std::size_t& rank) const noexcept {
    std::uint32_t digit = digits;
    while (digit-- > 0) {
      std::size_t here = 0;
      for (std::size_t table = 0; table < kTables; ++table) here += count[table][digit];
      if (rank <= here) break;
      rank -= here;
    }
    return digit;
  }
};

/// One radix step: among keys whose bits above `shift + width` equal `prefix`, fixes `width` more bits.
void refine(const F32* a, std::size_t n, unsigned shift, unsigned width, std::uint32_t& prefix,
            std::size_t& rank, Histogram& histogram) noexcept {
  const std::uint32_t last = (1u << width) - 1;
  const unsigned above = shift + width;
  histogram.clear();
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    // Adding 0 costs less than a branch that depends on the data.
    histogram.count[i % Histogram::kTables][(key >> shift) & last] += key >> above == prefix ? 1u : 0u;
  }
  prefix = (prefix << width) | histogram.find(last + 1, rank);
}

/// Cut for the k largest of n magnitudes, 1 <= k <= n: digits of 11, 11 and 9 bits, highest first.
Cut find_cut(const F32* a, std::size_t n, std::size_t k) noexcept {
  Histogram histogram;
  std::uint32_t key = 0;
  std::size_t rank = k;
  refine(a, n, 20, 11, key, rank, histogram);
  refine(a, n, 9, 11, key, rank, histogram);
  refine(a, n, 0, 9, key, rank, histogram);
  return {key, rank};
}

/// Writes the k elements that `cut` selects from a, whose element i has index `names[i]` (i if null).
void emit(const F32* a, const std::uint32_t* names, Cut cut, std::size_t k, U32* indices,
          F32* values) noexcept {
  for (std::size_t i = 0, found = 0; found < k; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    const bool tie = key == cut.key && cut.ties > 0;
    if (key <= cut.key && !tie) continue;
    cut.ties -= tie ? 1 : 0;
    indices[found] = names != nullptr ? names[i] : static_cast<std::uint32_t>(i);
    values[found] = a[i];
    ++found;
  }
}

/// a = x + residual where there is a residual, which becomes a.
void add_residual(const F32* x, F32* residual, std::size_t n) noexcept {
  if (residual == nullptr) return;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) residual[i] = x[i] + residual[i];
}

/// Magnitude of this rank, from 1, in a sample of `lines` lines of 16 elements; `sample` has room for them.
std::uint32_t sampled_threshold(const F32* x, const F32* residual, std::size_t n, std::size_t lines,
                                std::size_t rank, float* sample) noexcept {
  const std::size_t stride = n / lines;
  std::uint64_t state = n;
  for (std::size_t line = 0; line < lines; ++line) {
    // One line at a random place of each stratum, so that no period of the data can hide from the sample.
    state = state * 6364136223846793005u + 1442695040888963407u;
    const std::size_t from = line * stride + static_cast<std::size_t>((state >> 33) % (stride - kLine + 1));
    float* to = sample + line * kLine;
    for (std::size_t j = 0; j < kLine; ++j) {
      to[j] = residual != nullptr ? x[from + j] + residual[from + j] : x[from + j];
    }
  }
  const std::uint32_t key = find_cut(sample, lines * kLine, rank).key;
  // Every NaN and infinity is to be a candidate, because only candidates are counted; zeros never are.
  return key > kInfinityBits ? kInfinityBits : (key > 0 ? key : 1);
}

/// Number of bits that are set.
std::size_t ones(std::uint64_t mask) noexcept {
  return static_cast<std::size_t>(__builtin_popcountll(mask));
}

/// One pass: residual = a, and the elements of a that reach the threshold go to indices and values, in order.
/// Returns how many, or kOverflow if they are more than `capacity`; the residual is complete in either case.
std::size_t collect(const F32* x, F32* residual, std::size_t n, std::uint32_t threshold, std::size_t capacity,
                    U32* indices, F32* values) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  std::size_t found = 0;
  std::size_t i = 0;
  for (; i + kMaskElements <= n; i += kMaskElements) {
    prefetch_ahead(x + i, kMaskElements * sizeof(float));
    add_residual(x + i, residual != nullptr ? residual + i : nullptr, kMaskElements);
    std::uint64_t mask = mask_of(a + i, threshold);
    if (found + kMaskElements > capacity && found + ones(mask) > capacity) {
      add_residual(x + i + kMaskElements, residual != nullptr ? residual + i + kMaskElements : nullptr,
                   n - i - kMaskElements);
      return kOverflow;
    }
    for (; mask != 0; mask &= mask - 1, ++found) {
      const std::size_t at = i + static_cast<std::size_t>(__builtin_ctzll(mask));
      indices[found] = static_cast<std::uint32_t>(at);
      values[found] = a[at];
    }
  }
  add_residual(x + i, residual != nullptr ? residual + i : nullptr, n - i);
  for (; i < n; ++i) {
    if (magnitude_bits(a[i]) < threshold) continue;
    if (found == capacity) return kOverflow;
    indices[found] = static_cast<std::uint32_t>(i);
    values[found] = a[i];
    ++found;
  }
  return found;
}

std::size_t count_nonfinite(const F32* a, std::size_t n) noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) count += magnitude_bits(a[i]) >= kInfinityBits ? 1 : 0;
  return count;
}

}  // namespace
}  // namespace pydec
