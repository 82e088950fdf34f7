// Mixing steps with what follows them, each in one pass: push-sum, gradient tracking, momentum SGD.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/stream.h"
#include "pydec/target.h"

namespace pydec {

/// m >= 1 vectors and their weights.
template <class Real>
struct TermsOf {
  const Any<Real>* const* x;
  const Real* w;
  std::size_t m;
};
using Terms = TermsOf<float>;
using DoubleTerms = TermsOf<double>;

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; outputs do not
/// overlap each other or an input, except that `out` may be exactly one of the x[k]; nothing is checked,
/// thrown or allocated. sum[i] stands for w[0] * x[0][i] + ... with the bits of MixKernels::mix_f32; every
/// further operation rounds once. `out` is written past the caches if `stream` and it is none of the x[k].
struct UpdateKernels {
  /// out = sum, ratio = sum / divisor.
  void (*push_sum_f32)(const Terms& terms, float divisor, F32* out, F32* ratio, std::size_t n,
                       bool stream) noexcept;
  /// out = (sum + gradient) - previous; previous = gradient.
  void (*tracking_f32)(const Terms& terms, const F32* gradient, F32* previous, F32* out, std::size_t n,
                       bool stream) noexcept;
  /// velocity = momentum * velocity + gradient; out = sum + (-rate) * velocity.
  void (*momentum_f32)(const Terms& terms, const F32* gradient, float momentum, float rate, F32* velocity,
                       F32* out, std::size_t n, bool stream) noexcept;
  /// The same in double, of sums with the bits of MixKernels::mix_f64.
  void (*push_sum_f64)(const DoubleTerms& terms, double divisor, F64* out, F64* ratio, std::size_t n,
                       bool stream) noexcept;
  void (*tracking_f64)(const DoubleTerms& terms, const F64* gradient, F64* previous, F64* out, std::size_t n,
                       bool stream) noexcept;
  void (*momentum_f64)(const DoubleTerms& terms, const F64* gradient, double momentum, double rate,
                       F64* velocity, F64* out, std::size_t n, bool stream) noexcept;
};

}  // namespace pydec
