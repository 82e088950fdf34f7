// Weighted sums of vectors.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/stream.h"
#include "pydec/target.h"

namespace pydec {

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; nothing
/// is checked, nothing is thrown, nothing is allocated.
struct MixKernels {
  /// out[i] = w[0] * x[0][i] + ... + w[m-1] * x[m-1][i], m >= 1; rounds after every product and every
  /// addition, in increasing k. `out` may be exactly one of the x[k]; it overlaps none in part.
  /// It is written past the caches if `stream` and it is none of them.
  void (*mix_f32)(const F32* const* x, const float* w, std::size_t m, F32* out, std::size_t n,
                  bool stream) noexcept;
  /// The same in double.
  void (*mix_f64)(const F64* const* x, const double* w, std::size_t m, F64* out, std::size_t n,
                  bool stream) noexcept;
};

}  // namespace pydec
