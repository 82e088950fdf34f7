#include "pydec/reduce.h"

#include "cpu/loop.h"
#include "cpu/sums.h"

namespace pydec {
namespace {

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
