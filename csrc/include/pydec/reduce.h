// Reductions of vectors to one number.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// Elements of a chunk of a sum: the unit that threads share out.
constexpr std::size_t kSumChunk = std::size_t{1} << 16;

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; nothing
/// is checked, thrown or allocated.
///
/// Sums run in double over 16 lanes (element i goes to lane i mod 16), which are added pairwise at
/// the end of every chunk of kSumChunk elements; the sums of the chunks are added in order. Neither the
/// register width nor a division of the chunks among threads changes the result.
struct ReduceKernels {
  /// sum_i x[i]^2.
  double (*sqnorm_f32)(const F32* x, std::size_t n) noexcept;
  /// sum_i (x[i] - y[i])^2, with the difference taken in double.
  double (*sqdist_f32)(const F32* x, const F32* y, std::size_t n) noexcept;
  /// out[k] = sqdist_f32(x[k], y, n) with the same bits, k < m, while y is fetched once. `out` overlaps
  /// nothing.
  void (*sqdists_f32)(const F32* const* x, std::size_t m, const F32* y, std::size_t n, double* out) noexcept;
  /// Elements that are NaN or infinite.
  std::size_t (*count_nonfinite_f32)(const F32* x, std::size_t n) noexcept;
};

}  // namespace pydec
