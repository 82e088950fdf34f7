// Distances between vectors, and what is done with them: what Krum, nearest-neighbour averages and clipping
// use.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// Elements of each vector whose differences from the centre a Gram matrix keeps as doubles at a time.
constexpr std::size_t kGramTile = 256;
/// Elements whose tiles are added in order; the sums of these chunks are what threads share out.
constexpr std::size_t kGramChunk = std::size_t{1} << 16;

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and outputs
/// do not overlap unless stated; nothing is checked, thrown or allocated.
struct DistanceKernels {
  /// gram[i * n + j] += sum_e (x[i][e] - c[e]) * (x[j][e] - c[e]) for i <= j, differences, products and sums
  /// in double; c null is the origin. Element e goes to lane e mod 8; the lanes are added pairwise at the end
  /// of every kGramTile elements, and the sums of the tiles in order to a matrix that is 0 at the start of
  /// every kGramChunk elements; those of the chunks are added in order. A chunk may come in parts of whole
  /// tiles. `work` holds n * kGramTile doubles.
  void (*gram_f32)(const F32* const* x, std::size_t n, const F32* c, std::size_t d, double* gram,
                   double* work) noexcept;
  void (*gram_f64)(const F64* const* x, std::size_t n, const F64* c, std::size_t d, double* gram,
                   double* work) noexcept;
  /// For k = 0..m-1 in order: out[e] += factor[k] * (x[k][e] - y[e]), rounding after every operation. `out`
  /// may be exactly y or one of the x[k], whose old values count.
  void (*add_differences_f32)(const F32* const* x, const float* factor, std::size_t m, const F32* y, F32* out,
                              std::size_t d) noexcept;
  /// The same in double.
  void (*add_differences_f64)(const F64* const* x, const double* factor, std::size_t m, const F64* y,
                              F64* out, std::size_t d) noexcept;
};

}  // namespace pydec
