// One bit for every element that reaches a threshold: the step of top-k that loops do not vectorise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"

#if defined(__SSE4_2__)
#include <immintrin.h>
#endif

namespace pydec {
namespace {

constexpr std::size_t kMaskElements = 64;

/// Bit j is set if |a[j]|, as an integer, is at least `threshold` (at least 1), j < 64.
#if defined(__AVX512F__)
std::uint64_t mask_of(const F32* a, std::uint32_t threshold) noexcept {
  const __m512i magnitude = _mm512_set1_epi32(static_cast<int>(kMagnitudeMask));
  const __m512i bound = _mm512_set1_epi32(static_cast<int>(threshold));
  std::uint64_t mask = 0;
  for (unsigned part = 0; part < 4; ++part) {
    const __m512i bits = _mm512_and_si512(_mm512_loadu_si512(a + part * 16), magnitude);
    mask |= std::uint64_t{_mm512_cmpge_epi32_mask(bits, bound)} << (part * 16);
  }
  return mask;
}
#elif defined(__AVX2__)
std::uint64_t mask_of(const F32* a, std::uint32_t threshold) noexcept {
  const __m256i magnitude = _mm256_set1_epi32(static_cast<int>(kMagnitudeMask));
  const __m256i below = _mm256_set1_epi32(static_cast<int>(threshold) - 1);
  std::uint64_t mask = 0;
  for (unsigned part = 0; part < 8; ++part) {
    const __m256i loaded = _mm256_castps_si256(_mm256_loadu_ps(a + part * 8));
    const __m256i reached = _mm256_cmpgt_epi32(_mm256_and_si256(loaded, magnitude), below);
    const int bits = _mm256_movemask_ps(_mm256_castsi256_ps(reached));
    mask |= std::uint64_t{static_cast<std::uint32_t>(bits)} << (part * 8);
  }
  return mask;
}
#elif defined(__SSE4_2__)
std::uint64_t mask_of(const F32* a, std::uint32_t threshold) noexcept {
  const __m128i magnitude = _mm_set1_epi32(static_cast<int>(kMagnitudeMask));
  const __m128i below = _mm_set1_epi32(static_cast<int>(threshold) - 1);
  std::uint64_t mask = 0;
  for (unsigned part = 0; part < 16; ++part) {
    const __m128i loaded = _mm_castps_si128(_mm_loadu_ps(a + part * 4));
    const __m128i reached = _mm_cmpgt_epi32(_mm_and_si128(loaded, magnitude), below);
    const int bits = _mm_movemask_ps(_mm_castsi128_ps(reached));
    mask |= std::uint64_t{static_cast<std::uint32_t>(bits)} << (part * 4);
  }
  return mask;
}
#else
std::uint64_t mask_of(const F32* a, std::uint32_t threshold) noexcept {
  std::uint64_t mask = 0;
  for (unsigned j = 0; j < kMaskElements; ++j) {
    mask |= std::uint64_t{magnitude_bits(a[j]) >= threshold ? 1u : 0u} << j;
  }
  return mask;
}
#endif

/// Writes the elements of a[0..64) whose bit is set, and their names, side by side; returns how many. May
/// write anything to the rest of the 64 places.
#if defined(__AVX512F__)
// Where most bits are set: 0.1 ms instead of 0.3 ms for the 200,000 candidates of 16 Mi elements.
inline std::size_t compress(const F32* a, const U32* names, std::uint64_t mask, U32* out_names,
                            F32* out) noexcept {
  std::size_t found = 0;
  for (unsigned part = 0; part < 4; ++part) {
    const auto bits = static_cast<__mmask16>(mask >> (part * 16));
    _mm512_storeu_si512(out_names + found,
                        _mm512_maskz_compress_epi32(bits, _mm512_loadu_si512(names + part * 16)));
    _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(bits, _mm512_loadu_si512(a + part * 16)));
    found += static_cast<std::size_t>(__builtin_popcount(bits));
  }
  return found;
}
#else
inline std::size_t compress(const F32* a, const U32* names, std::uint64_t mask, U32* out_names,
                            F32* out) noexcept {
  std::size_t found = 0;
  for (; mask != 0; mask &= mask - 1, ++found) {
    const auto at = static_cast<std::size_t>(__builtin_ctzll(mask));
    out_names[found] = names[at];
    out[found] = a[at];
  }
  return found;
}
#endif

}  // namespace
}  // namespace pydec
