// Mixing steps with what follows them, each in one pass: push-sum, gradient tracking, momentum SGD.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/stream.h"
#include "pydec/target.h"

namespace pydec {

/// m >= 1 vectors and their weights.
struct Terms {
  const F32* const* x;
  const float* w;
  std::size_t m;
};

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
};

}  // namespace pydec
