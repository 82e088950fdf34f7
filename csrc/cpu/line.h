// Lines of 16 elements in registers, and bytes to and from them. GCC vectorises none of this well: it spells
// minima as comparisons and narrows words to bytes one register at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element_quant.h"

#if defined(__SSE4_2__)
#include <immintrin.h>
#endif

namespace pydec {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t kStep = 16;
#elif defined(__AVX__)
constexpr std::size_t kStep = 8;
#else
constexpr std::size_t kStep = 4;
#endif
// Fixed at 16 whatever the register width: the layout of codes and the order of additions depend on it.
constexpr std::size_t kLine = 16;
constexpr std::size_t kSteps = kLine / kStep;

using Register = float __attribute__((vector_size(kStep * sizeof(float))));
using Words = std::uint32_t __attribute__((vector_size(kStep * sizeof(float))));
using Integers = std::int32_t __attribute__((vector_size(kStep * sizeof(float))));
using Bytes = std::uint8_t __attribute__((vector_size(kStep * sizeof(float))));

template <>
struct IntegersOf<Register> {
  using Unsigned = Words;
  using Signed = Integers;
};

inline Register load(const F32* x) noexcept {
  Register a;
  __builtin_memcpy(&a, x, sizeof a);
  return a;
}

inline void store(Register a, F32* out) noexcept {
  __builtin_memcpy(out, &a, sizeof a);
}

/// The larger in each lane.
inline Words higher_words(Words a, Words b) noexcept {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(
      _mm512_maskz_max_epu32(0xffff, reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(
      _mm256_max_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#elif defined(__SSE4_2__)
  return reinterpret_cast<Words>(_mm_max_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#else
  return a > b ? a : b;
#endif
}

/// The low bytes of four registers, in order.
inline Bytes low_bytes(Words a, Words b, Words c, Words d) noexcept {
  constexpr std::uint32_t kLow = 0xff;
  a &= kLow;
  b &= kLow;
  c &= kLow;
  d &= kLow;
#if defined(__AVX512F__)
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i ab = _mm512_packus_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b));
  const __m512i cd = _mm512_packus_epi32(reinterpret_cast<__m512i>(c), reinterpret_cast<__m512i>(d));
  return reinterpret_cast<Bytes>(_mm512_maskz_permutexvar_epi32(0xffff, order, _mm512_packus_epi16(ab, cd)));
#elif defined(__AVX2__)
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i ab = _mm256_packus_epi32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b));
  const __m256i cd = _mm256_packus_epi32(reinterpret_cast<__m256i>(c), reinterpret_cast<__m256i>(d));
  return reinterpret_cast<Bytes>(_mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), order));
#elif defined(__SSE4_2__)
  const __m128i ab = _mm_packus_epi32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b));
  const __m128i cd = _mm_packus_epi32(reinterpret_cast<__m128i>(c), reinterpret_cast<__m128i>(d));
  return reinterpret_cast<Bytes>(_mm_packus_epi16(ab, cd));
#else
  Bytes all;
  for (std::size_t j = 0; j < kStep; ++j) {
    all[j] = static_cast<std::uint8_t>(a[j]);
    all[kStep + j] = static_cast<std::uint8_t>(b[j]);
    all[2 * kStep + j] = static_cast<std::uint8_t>(c[j]);
    all[3 * kStep + j] = static_cast<std::uint8_t>(d[j]);
  }
  return all;
#endif
}

/// Writes the 16 words of a line, all below 256, as bytes.
inline void store_bytes(const Words (&line)[kSteps], std::uint8_t* out) noexcept {
#if defined(__AVX512F__)
  const __m128i all = _mm512_maskz_cvtepi32_epi8(0xffff, reinterpret_cast<__m512i>(line[0]));
  __builtin_memcpy(out, &all, sizeof all);
#elif defined(__AVX2__)
  const __m256i both =
      _mm256_packus_epi32(reinterpret_cast<__m256i>(line[0]), reinterpret_cast<__m256i>(line[1]));
  const __m256i halves = _mm256_permute4x64_epi64(both, 0xd8);
  const __m128i all = _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  __builtin_memcpy(out, &all, sizeof all);
#elif defined(__SSE4_2__)
  const Bytes all = low_bytes(line[0], line[1], line[2], line[3]);
  __builtin_memcpy(out, &all, sizeof all);
#else
  for (std::size_t i = 0; i < kLine; ++i) {
    out[i] = static_cast<std::uint8_t>(line[i / kStep][i % kStep]);
  }
#endif
}

#if defined(__SSE4_2__)
/// The first n_bytes bytes, at most 16.
template <std::size_t n_bytes>
inline __m128i load_few(const void* from) noexcept {
  __m128i a = _mm_setzero_si128();
  __builtin_memcpy(&a, from, n_bytes);
  return a;
}
#endif

/// Bytes as words.
inline Words load_bytes(const std::uint8_t* bytes) noexcept {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_maskz_cvtepu8_epi32(0xffff, load_few<16>(bytes)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_cvtepu8_epi32(load_few<8>(bytes)));
#elif defined(__SSE4_2__)
  return reinterpret_cast<Words>(_mm_cvtepu8_epi32(load_few<4>(bytes)));
#else
  Words a;
  for (std::size_t j = 0; j < kStep; ++j) a[j] = bytes[j];
  return a;
#endif
}

/// Signed bytes as integers.
inline Integers load_signed_bytes(const std::uint8_t* bytes) noexcept {
#if defined(__AVX512F__)
  return reinterpret_cast<Integers>(_mm512_maskz_cvtepi8_epi32(0xffff, load_few<16>(bytes)));
#elif defined(__AVX2__)
  return reinterpret_cast<Integers>(_mm256_cvtepi8_epi32(load_few<8>(bytes)));
#elif defined(__SSE4_2__)
  return reinterpret_cast<Integers>(_mm_cvtepi8_epi32(load_few<4>(bytes)));
#else
  Integers a;
  for (std::size_t j = 0; j < kStep; ++j) a[j] = static_cast<std::int8_t>(bytes[j]);
  return a;
#endif
}

/// 16-bit numbers, in memory of any type, as words.
inline Words load_halves(const void* halves) noexcept {
#if defined(__AVX512F__)
  __m256i a;
  __builtin_memcpy(&a, halves, sizeof a);
  return reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, a));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(load_few<16>(halves)));
#elif defined(__SSE4_2__)
  return reinterpret_cast<Words>(_mm_cvtepu16_epi32(load_few<8>(halves)));
#else
  Words a;
  for (std::size_t j = 0; j < kStep; ++j) {
    std::uint16_t half;
    __builtin_memcpy(&half, static_cast<const char*>(halves) + 2 * j, sizeof half);
    a[j] = half;
  }
  return a;
#endif
}

/// The largest word.
inline std::uint32_t largest_of(Words a) noexcept {
#if defined(__SSE4_2__)
  constexpr std::size_t kQuarter = 4;
  __m128i part[kStep / kQuarter];
  __builtin_memcpy(part, &a, sizeof part);
  for (std::size_t half = kStep / kQuarter / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) part[j] = _mm_max_epu32(part[j], part[j + half]);
  }
  __m128i all = part[0];
  all = _mm_max_epu32(all, _mm_shuffle_epi32(all, 0x4e));
  all = _mm_max_epu32(all, _mm_shuffle_epi32(all, 0xb1));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(all));
#else
  std::uint32_t largest = 0;
  for (std::size_t j = 0; j < kStep; ++j) largest = a[j] > largest ? a[j] : largest;
  return largest;
#endif
}

/// Pairwise sum of a line: lanes j and j + 8, then j and j + 4, and so on.
inline float sum_of_line(const Register (&line)[kSteps]) noexcept {
#if defined(__SSE4_2__)
  __m128 part[4];
  __builtin_memcpy(part, line, sizeof part);
  const __m128 four = _mm_add_ps(_mm_add_ps(part[0], part[2]), _mm_add_ps(part[1], part[3]));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float lane[kLine];
  __builtin_memcpy(lane, line, sizeof lane);
  for (std::size_t half = kLine / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
#endif
}

}  // namespace
}  // namespace pydec
