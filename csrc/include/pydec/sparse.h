// Messages of (index, value) entries in ascending order of their indices: check, decode, weighted sum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// One sparse vector and its weight.
struct SparseMessage {
  const U32* indices;  ///< strictly increasing
  const F32* values;
  std::size_t k;
  float weight;
};

/// What check found.
struct SparseCheck {
  bool increasing;        ///< every index is larger than the one before it
  std::size_t nonfinite;  ///< values that are NaN or infinite
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and outputs
/// do not overlap; nothing is thrown or allocated, and nothing is checked but by `check`. The sums over
/// separate ranges [first, last) of `out` may run at the same time; together they are the sum over all.
struct SparseKernels {
  SparseCheck (*check)(const U32* indices, const F32* values, std::size_t k) noexcept;
  /// out[first..last) = 0, and the values at their indices.
  void (*decode_f32)(const U32* indices, const F32* values, std::size_t k, std::size_t first,
                     std::size_t last, F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * value_k[i] where message k has an entry i in first..last,
  /// rounding after the product and after the sum. One sweep over `out`. `places` has room for m numbers.
  void (*accumulate_f32)(const SparseMessage* messages, std::size_t m, std::size_t first, std::size_t last,
                         std::size_t* places, F32* out) noexcept;
};

}  // namespace pydec
