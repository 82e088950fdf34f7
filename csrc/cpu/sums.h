// The order of additions of the sums in double: 16 lanes in chunks of 2^16 elements (pydec/reduce.h).
#pragma once

#include <cstddef>

#include "cpu/loop.h"
#include "pydec/element.h"
#include "pydec/reduce.h"

#if defined(__SSE4_2__)
#include <immintrin.h>
#endif

namespace pydec {
namespace {

constexpr std::size_t kLanes = kSumLanes;
constexpr std::size_t kChunk = kSumChunk;

// The lanes are spelled as vectors of one register each, because GCC keeps an array of 16 doubles as scalars.
#if defined(__AVX512F__)
constexpr std::size_t kWidth = 8;
#elif defined(__AVX__)
constexpr std::size_t kWidth = 4;
#else
constexpr std::size_t kWidth = 2;
#endif
using Doubles = double __attribute__((vector_size(kWidth * sizeof(double))));
using Floats = float __attribute__((vector_size(kWidth * sizeof(float))));
constexpr std::size_t kRegisters = kLanes / kWidth;

/// As many floats as doubles fill a register. GCC 12 splits the conversion of a vector in two, which halved
/// the speed of the passes of PowerSGD.
inline Doubles load_doubles(const F32* x) noexcept {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(x));
#elif defined(__AVX__)
  return _mm256_cvtps_pd(_mm_loadu_ps(x));
#else
  Floats a;
  __builtin_memcpy(&a, x, sizeof a);
  return __builtin_convertvector(a, Doubles);
#endif
}

inline Doubles load_doubles(const F64* x) noexcept {
  Doubles a;
  __builtin_memcpy(&a, x, sizeof a);
  return a;
}

template <class Real>
struct SquaredDifference {
  const Any<Real>* x;
  const Any<Real>* y;
  void prefetch(std::size_t i) const noexcept {
    prefetch_ahead(x + i, kLanes * sizeof(Real));
    prefetch_ahead(y + i, kLanes * sizeof(Real));
  }
  void add(Doubles& sum, std::size_t i) const noexcept {
    const Doubles value = load_doubles(x + i) - load_doubles(y + i);
    sum += value * value;
  }
  void add(double& sum, std::size_t i) const noexcept {
    const double value = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += value * value;
  }
};

}  // namespace
}  // namespace pydec
