// One register of floats or of doubles. GCC does not see minimum and maximum in a comparison of vectors, so
// they are spelled as intrinsics; a sorting network is nothing else.
#pragma once

#include <cstddef>

#include "pydec/element.h"

#if defined(__SSE4_2__)
#include <immintrin.h>
#endif

namespace pydec {
namespace {

#if defined(__AVX512F__)
constexpr std::size_t kLanesWidth = 16;
#elif defined(__AVX__)
constexpr std::size_t kLanesWidth = 8;
#else
constexpr std::size_t kLanesWidth = 4;
#endif
using Lanes = float __attribute__((vector_size(kLanesWidth * sizeof(float))));
using DoubleLanes = double __attribute__((vector_size(kLanesWidth * sizeof(float))));

/// One of the two by the type of its elements.
template <class Real>
struct LanesOf;
template <>
struct LanesOf<float> {
  using Type = Lanes;
};
template <>
struct LanesOf<double> {
  using Type = DoubleLanes;
};

inline Lanes load_lanes(const F32* x) noexcept {
  Lanes a;
  __builtin_memcpy(&a, x, sizeof a);
  return a;
}

inline void store_lanes(Lanes a, F32* out) noexcept {
  __builtin_memcpy(out, &a, sizeof a);
}

inline DoubleLanes load_lanes(const F64* x) noexcept {
  DoubleLanes a;
  __builtin_memcpy(&a, x, sizeof a);
  return a;
}

inline void store_lanes(DoubleLanes a, F64* out) noexcept {
  __builtin_memcpy(out, &a, sizeof a);
}

/// a < b ? a : b in each lane: b if one is NaN.
inline Lanes lower_lanes(Lanes a, Lanes b) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(0xffff, a, b);  // GCC 12 warns of the plain form's own header
#elif defined(__AVX__)
  return _mm256_min_ps(a, b);
#elif defined(__SSE4_2__)
  return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

/// a > b ? a : b in each lane: b if one is NaN.
inline Lanes higher_lanes(Lanes a, Lanes b) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, a, b);
#elif defined(__AVX__)
  return _mm256_max_ps(a, b);
#elif defined(__SSE4_2__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline DoubleLanes lower_lanes(DoubleLanes a, DoubleLanes b) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_min_pd(0xff, a, b);
#elif defined(__AVX__)
  return _mm256_min_pd(a, b);
#elif defined(__SSE4_2__)
  return _mm_min_pd(a, b);
#else
  return a < b ? a : b;
#endif
}

inline DoubleLanes higher_lanes(DoubleLanes a, DoubleLanes b) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_max_pd(0xff, a, b);
#elif defined(__AVX__)
  return _mm256_max_pd(a, b);
#elif defined(__SSE4_2__)
  return _mm_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

}  // namespace
}  // namespace pydec
