#include "pydec/reduce.h"

#include "cpu/loop.h"
#include "cpu/sums.h"

namespace pydec {
namespace {

template <class Real>
struct Square {
  const Any<Real>* x;
  void prefetch(std::size_t i) const noexcept { prefetch_ahead(x + i, kLanes * sizeof(Real)); }
  void add(Doubles& sum, std::size_t i) const noexcept {
    const Doubles value = load_doubles(x + i);
    sum += value * value;
  }
  void add(double& sum, std::size_t i) const noexcept {
    const double value = x[i];
    sum += value * value;
  }
};

template <class Term>
void add_terms(const Term& term, std::size_t n, double* lane) noexcept {
  Doubles part[kRegisters];
  __builtin_memcpy(part, lane, sizeof part);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    term.prefetch(i);
    for (std::size_t r = 0; r < kRegisters; ++r) term.add(part[r], i + r * kWidth);
  }
  __builtin_memcpy(lane, part, sizeof part);
  for (std::size_t j = 0; i < n; ++i, ++j) term.add(lane[j], i);
}

template <class Real>
void add_squares(const Any<Real>* x, std::size_t n, double* lane) noexcept {
  add_terms(Square<Real>{x}, n, lane);
}

template <class Real>
void add_differences(const Any<Real>* x, const Any<Real>* y, std::size_t n, double* lane) noexcept {
  add_terms(SquaredDifference<Real>{x, y}, n, lane);
}

inline std::uint32_t is_nonfinite(float x) noexcept {
  return magnitude_bits(x) >= kInfinityBits ? 1u : 0u;
}

inline std::uint32_t is_nonfinite(double x) noexcept {
  std::uint64_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits << 1) >= (std::uint64_t{0x7ff} << 53) ? 1u : 0u;
}

template <class Real>
std::size_t count_nonfinite(const Any<Real>* x, std::size_t n) noexcept {
  constexpr std::size_t kStep = 256;
  std::size_t total = 0;
  for (std::size_t first = 0; first < n; first += kStep) {
    const std::size_t end = n - first < kStep ? n : first + kStep;
    std::uint32_t count = 0;
    prefetch_ahead(x + first, kStep * sizeof(Real));
    for (std::size_t i = first; i < end; ++i) count += is_nonfinite(x[i]);
    total += count;
  }
  return total;
}

}  // namespace

template <>
const ReduceKernels& table<ReduceKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ReduceKernels kernels{.add_squares_f32 = add_squares<float>,
                                         .add_squares_f64 = add_squares<double>,
                                         .add_differences_f32 = add_differences<float>,
                                         .add_differences_f64 = add_differences<double>,
                                         .count_nonfinite_f32 = count_nonfinite<float>,
                                         .count_nonfinite_f64 = count_nonfinite<double>};
  return kernels;
}

}  // namespace pydec
