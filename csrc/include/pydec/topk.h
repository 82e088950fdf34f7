// Exact selection of the k entries of largest magnitude, and its inverse, a weighted scatter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// Magnitudes, as integers, from `low` to below `high`, which is at most kAboveAll.
struct Bracket {
  std::uint32_t low;
  std::uint32_t high;
};

constexpr std::uint32_t kAboveAll = kMagnitudeMask + 1;  // larger than the magnitude of every float

/// How the selection goes about n and k; depends on nothing else. No plan changes the result.
struct TopkPlan {
  std::size_t sample_lines;  ///< lines of 16 elements to sample for thresholds; 0: no sample, exact passes
  std::size_t sample_rank;   ///< candidates reach the sample's element of this rank, counted from 1
  std::size_t
      sample_sure;       ///< what reaches the element of this rank is nearly always selected; 0: nothing is
  std::size_t capacity;  ///< of candidates
  std::size_t room;      ///< elements of each workspace array, more than the capacity
};

TopkPlan plan_topk(std::size_t n, std::size_t k) noexcept;

/// Memory of the caller, reused from call to call; plan.room elements each.
struct TopkWorkspace {
  std::uint32_t* indices;
  float* values;
};

/// What collect_f32 left in the workspace.
struct TopkCandidates {
  Bracket bracket;
  std::size_t count;  ///< candidates in the workspace
  bool complete;      ///< false if there were more than fit
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs
/// and outputs do not overlap; nothing is checked, thrown or allocated. Indices are uint32, so n <= 2^32.
///
/// select_f32 is bracket_f32, collect_f32 over everything and finish_f32. Threads can collect ranges of their
/// own; finish_f32 wants their candidates behind one another in the order of the ranges.
struct TopkKernels {
  /// With a = x (residual null) or a = x + residual: the k elements of largest |a|, k <= n, ties to the
  /// lowest index and NaN above infinity, in ascending order of their indices. A residual is overwritten by a
  /// with the selected elements set to 0. Returns how many elements of a are NaN or infinite.
  std::size_t (*select_f32)(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices,
                            F32* values, const TopkPlan& plan, const TopkWorkspace& workspace) noexcept;
  /// Thresholds from a sample of a, for a plan that has one; `sample` has plan.room elements.
  Bracket (*bracket_f32)(const F32* x, const F32* residual, std::size_t n, const TopkPlan& plan,
                         F32* sample) noexcept;
  /// The elements first..last of a that reach bracket.low become candidates, at most `capacity`. The residual
  /// becomes a, but 0 where a candidate reaches bracket.high.
  TopkCandidates (*collect_f32)(const F32* x, F32* residual, std::size_t first, std::size_t last,
                                Bracket bracket, std::size_t capacity, U32* indices, F32* values) noexcept;
  /// Selects, as select_f32 does, from all candidates, or where they do not decide it from a.
  std::size_t (*finish_f32)(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices,
                            F32* values, TopkCandidates candidates, const TopkWorkspace& workspace) noexcept;
  /// The largest of k >= 1 indices.
  std::uint32_t (*max_u32)(const U32* indices, std::size_t k) noexcept;
  /// In order: out[indices[j]] += weight * values[j], rounding after the product and after the sum.
  void (*scatter_f32)(const U32* indices, const F32* values, std::size_t k, float weight, F32* out) noexcept;
};

}  // namespace pydec
