// Coordinate-wise robust averages of n vectors: median, trimmed mean, mean around the median.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/stream.h"
#include "pydec/target.h"

namespace pydec {

/// Vectors that one call takes at most.
constexpr std::size_t kMaxRobust = 256;

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; 1 <= n <=
/// kMaxRobust vectors of d elements; nothing is checked, thrown or allocated. `out` may be exactly one of the
/// x[k]; it overlaps none in part.
///
/// In every coordinate the n values are sorted, s[0] <= ... <= s[n-1], a NaN counting as +infinity. A result
/// is a sum of at most n terms in the stated order, rounded after every addition, and then one division. A
/// result of zero is +0. Infinities stay where they are in the order: up to f of them are dropped. `out` is
/// written past the caches if `stream` and it is none of the x[k]. `largest` becomes the largest magnitude of
/// all values, infinity if one is NaN.
struct RobustKernels {
  /// s[(n-1)/2] for odd n, 0.5 s[n/2-1] + 0.5 s[n/2] for even n.
  void (*median_f32)(const F32* const* x, std::size_t n, F32* out, std::size_t d, bool stream,
                     F32* largest) noexcept;
  /// (s[f] + ... + s[n-f-1]) / (n - 2f), from left to right; 2f < n.
  void (*trimmed_mean_f32)(const F32* const* x, std::size_t n, std::size_t f, F32* out, std::size_t d,
                           bool stream, F32* largest) noexcept;
  /// Mean of the m = n - f values closest to the median c; 2f < n. Of s[k] and s[k+m], k < f, the one kept is
  /// s[k+m] if c - s[k] > s[k+m] - c in float32, else s[k]; those are added first, then s[f] ... s[m-1].
  void (*mean_around_median_f32)(const F32* const* x, std::size_t n, std::size_t f, F32* out, std::size_t d,
                                 bool stream, F32* largest) noexcept;
  /// The same in double.
  void (*median_f64)(const F64* const* x, std::size_t n, F64* out, std::size_t d, bool stream,
                     F64* largest) noexcept;
  void (*trimmed_mean_f64)(const F64* const* x, std::size_t n, std::size_t f, F64* out, std::size_t d,
                           bool stream, F64* largest) noexcept;
  void (*mean_around_median_f64)(const F64* const* x, std::size_t n, std::size_t f, F64* out, std::size_t d,
                                 bool stream, F64* largest) noexcept;
};

}  // namespace pydec
