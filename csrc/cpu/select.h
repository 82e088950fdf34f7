// Selection over a whole vector: thresholds from a sample, one pass that collects, and an exact cut.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/loop.h"
#include "cpu/mask.h"
#include "cpu/search.h"

namespace pydec {
namespace {

constexpr std::size_t kLine = 16;  // float32 elements of a cache line
// Farther ahead than elsewhere: measured, 1.7 ms instead of 2.0 ms for 64 MiB that only are read.
constexpr std::size_t kSelectAhead = 8192 - kAheadBytes;

/// a = x + residual where there is a residual, which becomes a.
inline void add_residual(const F32* x, F32* residual, std::size_t n) noexcept {
  if (residual == nullptr) return;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) residual[i] = x[i] + residual[i];
}

/// Copies `lines` lines of 16 elements of a = x + residual, at places that only n decides.
inline void take_sample(const F32* x, const F32* residual, std::size_t n, std::size_t lines,
                        F32* sample) noexcept {
  constexpr std::size_t kBatch = 64;  // places that are asked for before the first of them is read
  const std::size_t stride = n / lines;
  std::uint64_t state = n;
  for (std::size_t line = 0; line < lines; line += kBatch) {
    const std::size_t count = lines - line < kBatch ? lines - line : kBatch;
    std::size_t places[kBatch];
    for (std::size_t p = 0; p < count; ++p) {
      // One line at a random place of each stratum, so that no period of the data can hide from the sample.
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto random = static_cast<std::size_t>((state >> 33) % (stride - kLine + 1));
      places[p] = (line + p) * stride + random;
      for (std::size_t end = 0; end < kLine; end += kLine - 1) {
        __builtin_prefetch(x + places[p] + end);
        if (residual != nullptr) __builtin_prefetch(residual + places[p] + end);
      }
    }
    for (std::size_t p = 0; p < count; ++p, sample += kLine) {
      if (residual == nullptr) {
        __builtin_memcpy(sample, x + places[p], kLine * sizeof(float));
        continue;
      }
      PYDEC_INDEPENDENT
      for (std::size_t j = 0; j < kLine; ++j) sample[j] = x[places[p] + j] + residual[places[p] + j];
    }
  }
}

/// Every NaN and infinity is to be a candidate, because only candidates are counted; zeros never are.
inline std::uint32_t as_threshold(std::uint32_t key) noexcept {
  return key > kInfinityBits ? kInfinityBits : (key > 0 ? key : 1);
}

/// One pass: the elements first..last of a = x + residual whose magnitude reaches bracket.low go to indices
/// and values, in order, at most `capacity`. residual = a, but 0 where a candidate's magnitude reaches
/// bracket.high.
inline TopkCandidates collect(const F32* x, F32* residual, std::size_t first, std::size_t last,
                              Bracket bracket, std::size_t capacity, U32* indices, F32* values) noexcept {
  const auto zeroed = static_cast<std::int32_t>(bracket.high < kAboveAll ? bracket.high : kMagnitudeMask);
  const bool zeroes = bracket.high < kAboveAll;
  float sums[kMaskElements];
  std::size_t found = 0;
  std::size_t i = first;
  // Two entries are written for every block, whether it has them or not: a loop over a block's candidates
  // would be mispredicted for every other block.
  for (; i + kMaskElements <= last && found + kMaskElements <= capacity; i += kMaskElements) {
    const F32* a = x + i;
    if (residual != nullptr) {
      F32* rest = residual + i;
      if (zeroes) {
        PYDEC_INDEPENDENT
        for (std::size_t j = 0; j < kMaskElements; ++j) {
          const float sum = x[i + j] + rest[j];
          sums[j] = sum;
          rest[j] = static_cast<std::int32_t>(magnitude_bits(sum)) >= zeroed ? 0.0f : sum;
        }
        a = sums;
      } else {
        add_residual(x + i, rest, kMaskElements);
        a = rest;
      }
    } else {
      prefetch_ahead(reinterpret_cast<const char*>(a) + kSelectAhead, kMaskElements * sizeof(float));
    }
    std::uint64_t mask = mask_of(a, bracket.low);
    for (unsigned entry = 0; entry < 2; ++entry, mask &= mask - 1) {
      const auto j = static_cast<std::size_t>(__builtin_ctzll(mask | (std::uint64_t{1} << 63)));
      indices[found] = static_cast<std::uint32_t>(i + j);
      values[found] = a[j];
      found += mask != 0 ? 1 : 0;
    }
    for (; __builtin_expect(mask != 0, 0); mask &= mask - 1, ++found) {
      const auto j = static_cast<std::size_t>(__builtin_ctzll(mask));
      indices[found] = static_cast<std::uint32_t>(i + j);
      values[found] = a[j];
    }
  }
  add_residual(x + i, residual != nullptr ? residual + i : nullptr, last - i);
  const F32* a = residual != nullptr ? residual : x;
  for (; i < last; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    if (key < bracket.low) continue;
    if (found == capacity) return {bracket, found, false};
    indices[found] = static_cast<std::uint32_t>(i);
    values[found] = a[i];
    if (residual != nullptr && key >= bracket.high) residual[i] = 0.0f;
    ++found;
  }
  return {bracket, found, true};
}

/// Puts back what `collect` set to 0.
inline void put_back(F32* residual, const U32* indices, const F32* values,
                     const TopkCandidates& candidates) noexcept {
  if (residual == nullptr || candidates.bracket.high >= kAboveAll) return;
  for (std::size_t j = 0; j < candidates.count; ++j) {
    if (magnitude_bits(values[j]) >= candidates.bracket.high) residual[indices[j]] = values[j];
  }
}

/// The elements of a[0..64) that `cut` selects; its ties become those that are left.
inline std::uint64_t cut_mask(const F32* a, Cut& cut) noexcept {
  std::uint64_t mask = cut.key < kMagnitudeMask ? mask_of(a, cut.key + 1) : 0;
  if (cut.ties == 0) return mask;
  std::uint64_t equal = mask_of(a, cut.key) & ~mask;
  for (; equal != 0 && cut.ties > 0; equal &= equal - 1, --cut.ties) mask |= equal & -equal;
  return mask;
}

/// Writes the k elements that `cut` selects from a[0..n), whose element i has index `names[i]` (i if null).
inline void emit(const F32* a, const U32* names, std::size_t n, Cut cut, std::size_t k, U32* indices,
                 F32* values) noexcept {
  std::size_t found = 0;
  std::size_t i = 0;
  for (; i + kMaskElements <= n && found < k; i += kMaskElements) {
    std::uint64_t mask = cut_mask(a + i, cut);
    if (found + kMaskElements <= k && names != nullptr) {
      found += compress(a + i, names + i, mask, indices + found, values + found);
      continue;
    }
    for (; mask != 0; mask &= mask - 1, ++found) {
      const std::size_t at = i + static_cast<std::size_t>(__builtin_ctzll(mask));
      indices[found] = names != nullptr ? names[at] : static_cast<std::uint32_t>(at);
      values[found] = a[at];
    }
  }
  for (; i < n && found < k; ++i) {
    const std::uint32_t key = magnitude_bits(a[i]);
    const bool tie = key == cut.key && cut.ties > 0;
    if (key <= cut.key && !tie) continue;
    cut.ties -= tie ? 1 : 0;
    indices[found] = names != nullptr ? names[i] : static_cast<std::uint32_t>(i);
    values[found++] = a[i];
  }
}

inline std::size_t count_nonfinite(const F32* a, std::size_t n) noexcept {
  return count_from(a, n, kInfinityBits);
}

}  // namespace
}  // namespace pydec
