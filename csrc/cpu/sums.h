// The order of additions of the sums in double: 16 lanes in chunks of 2^16 elements (pydec/reduce.h).
#pragma once

#include <cstddef>

#include "cpu/loop.h"
#include "pydec/element.h"
#include "pydec/reduce.h"

namespace pydec {
namespace {

// Fixed at 16 whatever the register width: the order of additions, and so the rounding, must not
// depend on the CPU.
constexpr std::size_t kLanes = 16;
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

struct SquaredDifference {
  const F32* x;
  const F32* y;
  void prefetch(std::size_t i) const noexcept {
    prefetch_ahead(x + i, kLanes * sizeof(float));
    prefetch_ahead(y + i, kLanes * sizeof(float));
  }
  void add(Doubles& sum, std::size_t i) const noexcept {
    Floats a;
    Floats b;
    __builtin_memcpy(&a, x + i, sizeof a);
    __builtin_memcpy(&b, y + i, sizeof b);
    const Doubles value = __builtin_convertvector(a, Doubles) - __builtin_convertvector(b, Doubles);
    sum += value * value;
  }
  void add(double& sum, std::size_t i) const noexcept {
    const double value = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += value * value;
  }
};

double sum_of_lanes(double* lane) noexcept {
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

}  // namespace
}  // namespace pydec
