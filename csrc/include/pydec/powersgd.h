// Low-rank approximation by one step of subspace iteration, and the sum of products that undoes it.
//
// A vector of n elements is a matrix A of ceil(n / columns) rows, row after row, whose last row is filled up
// with zeros. From r directions (rows of `right`, Q0) follow P, an orthonormal basis of what A makes of them,
// and Q = A^T P; then P Q^T = P P^T A is the projection of A, whatever the directions were.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

constexpr std::size_t kMaxRank = 8;

struct PowersgdShape {
  std::size_t n;
  std::size_t columns;  ///< at least 1
  std::size_t rank;     ///< 0..kMaxRank
};

/// One encoded vector and its weight. Factors are stored direction by direction.
struct PowersgdMessage {
  const F32* left;   ///< P: rank x rows
  const F32* right;  ///< Q: rank x columns
  std::size_t rank;
  float weight;
};

/// Memory of the caller, reused from call to call.
struct PowersgdWorkspace {
  double* left;   ///< rank x rows
  double* right;  ///< rank x columns
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs
/// and outputs do not overlap; nothing is checked, thrown or allocated.
struct PowersgdKernels {
  /// Random directions: `count` numbers, odd multiples of 2^-24 in (-1, 1), drawn from a key that is made of
  /// `seed`, n and 1024 lines of 16 elements, evenly spread, of a = x (residual null) or a = x + residual.
  void (*start_f32)(const F32* x, const F32* residual, std::size_t n, std::uint64_t seed, std::size_t count,
                    F32* start) noexcept;
  /// One step, in one pass over a = x (residual null) or a = x + residual, which residual becomes. `right`
  /// holds Q0 and becomes Q, `left` becomes P. Q0 is brought to magnitudes around 1 by powers of two. A Q0 is
  /// summed in float, in 16 lanes for every row; A^T (A Q0) in double, in ascending order of the rows. On
  /// both works Gram-Schmidt, in double, each direction twice against those before it, so that A is read only
  /// once; then both are rounded. A direction of which less than 2^-18 is left is 0 in both factors. Returns
  /// how many elements of a are NaN or infinite; if any, the factors mean nothing. Factors are not finite
  /// either where products overflow.
  std::size_t (*iterate_f32)(const F32* x, F32* residual, const PowersgdShape& shape, F32* left, F32* right,
                             const PowersgdWorkspace& workspace) noexcept;
  /// out = P Q^T = ((p_0 q_0 + p_1 q_1) + ...), rounding after every product and every sum.
  void (*decode_f32)(const PowersgdMessage& message, std::size_t n, std::size_t columns, F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * decoded_k[i], rounding after the product and after the
  /// sum, in one pass over `out`, last rows first: after iterate_f32 these are still in the caches.
  void (*accumulate_f32)(const PowersgdMessage* messages, std::size_t m, std::size_t n, std::size_t columns,
                         F32* out) noexcept;
};

PYDEC_ELEMENT std::size_t powersgd_rows(std::size_t n, std::size_t columns) {
  return n / columns + (n % columns != 0 ? 1 : 0);
}

}  // namespace pydec
