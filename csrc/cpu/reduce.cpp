#include "pydec/reduce.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

// Fixed at 16 whatever the register width: the order of additions, and so the rounding, must not
// depend on the CPU.
constexpr std::size_t kLanes = 16;
// Chunks are the unit that threads may share out.
constexpr std::size_t kChunk = std::size_t{1} << 16;

double sum_of_lanes(double* lane) noexcept {
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

struct Square {
  const F32* x;
  double operator()(std::size_t i) const noexcept {
    const double value = x[i];
    return value * value;
  }
};

struct SquaredDifference {
  const F32* x;
  const F32* y;
  double operator()(std::size_t i) const noexcept {
    const double value = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    return value * value;
  }
};

template <class Term>
double sum(const Term& term, std::size_t n) noexcept {
  double total = 0.0;
  for (std::size_t first = 0; first < n; first += kChunk) {
    const std::size_t end = n - first < kChunk ? n : first + kChunk;
    double lane[kLanes] = {};
    std::size_t i = first;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::size_t j = 0; j < kLanes; ++j) lane[j] += term(i + j);
    }
    for (std::size_t j = 0; i < end; ++i, ++j) lane[j] += term(i);
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

std::size_t count_nonfinite_f32(const F32* x, std::size_t n) noexcept {
  std::size_t total = 0;
  for (std::size_t first = 0; first < n; first += kChunk) {
    const std::size_t end = n - first < kChunk ? n : first + kChunk;
    std::uint32_t count = 0;
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
                                         .count_nonfinite_f32 = count_nonfinite_f32};
  return kernels;
}

}  // namespace pydec
