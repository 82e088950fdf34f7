// Reductions of vectors to one number.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// Elements of a chunk of a sum: the unit that threads share out.
constexpr std::size_t kSumChunk = std::size_t{1} << 16;

/// Fixed at 16 whatever the register width: the order of additions, and so the rounding, must not depend on
/// the CPU.
constexpr std::size_t kSumLanes = 16;

/// The sum of a chunk from its lanes, added pairwise; overwrites them.
PYDEC_ELEMENT double sum_of_lanes(double* lane) {
  for (std::size_t half = kSumLanes / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; nothing
/// is checked, thrown or allocated.
///
/// Sums run in double over kSumLanes lanes (element i goes to lane i mod 16), which are added by
/// `sum_of_lanes` at the end of every chunk of kSumChunk elements; the sums of the chunks are added in order.
/// Neither the register width nor a division of the chunks among threads changes the result. A chunk may
/// come in parts, of which all but its last are multiples of 16.
struct ReduceKernels {
  /// Adds x[i]^2 to the lanes of a chunk, which start at 0; n is at most kSumChunk.
  void (*add_squares_f32)(const F32* x, std::size_t n, double* lane) noexcept;
  void (*add_squares_f64)(const F64* x, std::size_t n, double* lane) noexcept;
  /// Adds (x[i] - y[i])^2, with the difference taken in double.
  void (*add_differences_f32)(const F32* x, const F32* y, std::size_t n, double* lane) noexcept;
  void (*add_differences_f64)(const F64* x, const F64* y, std::size_t n, double* lane) noexcept;
  /// Elements that are NaN or infinite.
  std::size_t (*count_nonfinite_f32)(const F32* x, std::size_t n) noexcept;
  std::size_t (*count_nonfinite_f64)(const F64* x, std::size_t n) noexcept;
};

}  // namespace pydec
