// Selection of what reaches a threshold that a sample suggests, within bounds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"
#include "pydec/topk.h"

namespace pydec {

/// How a threshold is chosen and bounded.
struct ThresholdPlan {
  std::size_t
      sample_lines;  ///< lines of 16 elements to sample, at most n / 16; 0: all elements are the sample
  std::size_t sample_rank;  ///< the threshold is the sample's magnitude of this rank, counted from 1
  std::size_t least;        ///< entries that are sent at the least, 1..most
  std::size_t most;         ///< entries that are sent at the most, at most n
};

/// The plan for about k of n >= 1 elements, between `least` and `most`; depends on nothing else.
ThresholdPlan plan_threshold(std::size_t n, std::size_t k, std::size_t least, std::size_t most) noexcept;

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs
/// and outputs do not overlap; nothing is checked, thrown or allocated. Indices are uint32, so n <= 2^32.
///
/// For a plan with a sample, select_f32 is bracket_f32, TopkKernels::collect_f32 over everything, at most
/// plan.most elements, and finish_f32.
struct ThresholdKernels {
  /// With a = x (residual null) or a = x + residual and n >= 1: the non-zero elements of a whose magnitude
  /// reaches the plan's threshold; if they are fewer than `least` (more than `most`), exactly the `least`
  /// (`most`) elements of largest magnitude, ties to the lowest index. In ascending order of their indices.
  /// A residual is overwritten by a with the selected elements set to 0. `sample` has room for the sampled
  /// elements and may be `values`. Returns how many are selected; `bad` becomes the number of NaN and
  /// infinite elements of a, which rank above all others.
  std::size_t (*select_f32)(const F32* x, F32* residual, std::size_t n, const ThresholdPlan& plan,
                            U32* indices, F32* values, float* sample, std::size_t& bad) noexcept;
  /// The threshold of a plan that has a sample, for which `sample` has room.
  Bracket (*bracket_f32)(const F32* x, const F32* residual, std::size_t n, const ThresholdPlan& plan,
                         float* sample) noexcept;
  /// What select_f32 selects, from candidates at `indices` and `values`, or where they are too few or too
  /// many from a.
  std::size_t (*finish_f32)(const F32* x, F32* residual, std::size_t n, const ThresholdPlan& plan,
                            TopkCandidates candidates, U32* indices, F32* values, std::size_t& bad) noexcept;
};

}  // namespace pydec
