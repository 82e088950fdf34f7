// Exact selection of the k entries of largest magnitude, and its inverse, a weighted scatter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// How select_f32 goes about n and k; depends on nothing else. No plan changes the result.
struct TopkPlan {
  std::size_t sample_lines;  ///< lines of 16 elements to sample for a threshold; 0: no sample, exact passes
  std::size_t sample_rank;   ///< the threshold is the sample's element of this rank, counted from 1
  std::size_t capacity;      ///< elements of each workspace array
};

TopkPlan plan_topk(std::size_t n, std::size_t k) noexcept;

/// Memory of the caller, reused from call to call; plan.capacity elements each.
struct TopkWorkspace {
  std::uint32_t* indices;
  float* values;
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs
/// and outputs do not overlap; nothing is checked, thrown or allocated. Indices are uint32, so n <= 2^32.
struct TopkKernels {
  /// With a = x (residual null) or a = x + residual: the k elements of largest |a|, k <= n, ties to the
  /// lowest index and NaN above infinity, in ascending order of their indices. A residual is overwritten by a
  /// with the selected elements set to 0. Returns how many elements of a are NaN or infinite.
  std::size_t (*select_f32)(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices,
                            F32* values, const TopkPlan& plan, const TopkWorkspace& workspace) noexcept;
  /// The largest of k >= 1 indices.
  std::uint32_t (*max_u32)(const U32* indices, std::size_t k) noexcept;
  /// In order: out[indices[j]] += weight * values[j], rounding after the product and after the sum.
  void (*scatter_f32)(const U32* indices, const F32* values, std::size_t k, float weight, F32* out) noexcept;
};

}  // namespace pydec
