#include "pydec/reduce.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

// Fixed at 16 whatever the register width: the order of additions, and so the rounding, must not
// depend on the CPU.
constexpr std::size_t kLanes = 16;
// Chunks are the unit that threads may share out.
constexpr std::size_t kChunk = std::size_t{1} << 16;

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

struct Square {
  const F32* x;
  void prefetch(std::size_t i) const noexcept { prefetch_ahead(x + i, kLanes * sizeof(float)); }
  void add(Doubles& sum, std::size_t i) const noexcept {
    Floats a;
    __builtin_memcpy(&a, x + i, sizeof a);
    const Doubles value = __builtin_convertvector(a, Doubles);
    sum += value * value;
  }
  void add(double& sum, std::size_t i) const noexcept {
    const double value = x[i];
    sum += value * value;
  }
};

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

template <class Term>
double sum(const Term& term, std::size_t n) noexcept {
  double total = 0.0;
  for (std::size_t first = 0; first < n; first += kChunk) {
    const std::size_t end = n - first < kChunk ? n : first + kChunk;
    Doubles part[kRegisters] = {};
    std::size_t i = first;
    for (; i + kLanes <= end; i += kLanes) {
      term.prefetch(i);
      for (std::size_t r = 0; r < kRegisters; ++r) term.add(part[r], i + r * kWidth);
    }
    double lane[kLanes];
    __builtin_memcpy(lane, part, sizeof lane);
    for (std::size_t j = 0; i < end; ++i, ++j) term.add(lane[j], i);
    total += sum_of_lanes(lane);
  }
  return total;
}

double sqnorm_f32(const F32* x, std::size_t n) noexcept {
  return sum(Square{x}, n);
}

double sqdist_f32(const F32* x, const F32* y, std::size_t n) noexcept {
  return sum(SquaredDifference{x, y}, n);
}

void sqdists_f32(const F32* const* x, std::size_t m, const F32* y, std::size_t n, double* out) noexcept {
  for (std::size_t k = 0; k < m; ++k) out[k] = 0.0;
  for (std::size_t first = 0; first < n; first += kChunk) {
    const std::size_t length = n - first < kChunk ? n - first : kChunk;
    for (std::size_t k = 0; k < m; ++k) out[k] += sum(SquaredDifference{x[k] + first, y + first}, length);
  }
}

std::size_t count_nonfinite_f32(const F32* x, std::size_t n) noexcept {
  constexpr std::size_t kStep = 256;
  std::size_t total = 0;
  for (std::size_t first = 0; first < n; first += kStep) {
    const std::size_t end = n - first < kStep ? n : first + kStep;
    std::uint32_t count = 0;
    prefetch_ahead(x + first, kStep * sizeof(float));
    for (std::size_t i = first; i < end; ++i) count += magnitude_bits(x[i]) >= kInfinityBits ? 1u : 0u;
    total += count;
  }
  return total;
}

}  // namespace

template <>
const ReduceKernels& table<ReduceKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ReduceKernels kernels{.sqnorm_f32 = sqnorm_f32,
                                         .sqdist_f32 = sqdist_f32,
                                         .sqdists_f32 = sqdists_f32,
                                         .count_nonfinite_f32 = count_nonfinite_f32};
  return kernels;
}

}  // namespace pydec
