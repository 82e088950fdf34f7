// The k largest magnitudes of a vector, from the candidates of one pass.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/select.h"
#include "pydec/topk.h"

namespace pydec {
namespace {

/// Two magnitudes of a sample: candidates reach `low`, and nearly always fewer than k reach `high`.
inline Bracket sampled_bracket(const F32* x, const F32* residual, std::size_t n, const TopkPlan& plan,
                               F32* sample) noexcept {
  std::size_t size = plan.sample_lines * kLine;
  take_sample(x, residual, n, plan.sample_lines, sample);
  const std::uint32_t low = find_cut(sample, size, plan.sample_rank, {0, kAboveAll}, sample + size).key;
  std::uint32_t high = kAboveAll;
  if (plan.sample_sure > 0) {
    size = keep_bracket(sample, size, {low, kAboveAll}, sample);
    high = find_cut(sample, size, plan.sample_sure, {low, kAboveAll}, sample + size).key;
  }
  return {as_threshold(low), high > low ? high : kAboveAll};
}

struct Chosen {
  std::size_t bad;     ///< NaN and infinite elements of a
  std::uint32_t high;  ///< the residual is 0 already where a selected magnitude reaches this
};

/// Writes the k largest of a = x (residual null) or a = residual, which `collect` made.
inline Chosen choose(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices, F32* values,
                     TopkCandidates candidates, const TopkWorkspace& workspace) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  const F32* found = workspace.values;
  std::uint32_t& high = candidates.bracket.high;
  const bool decided = candidates.complete && candidates.count >= k;
  if (!decided || count_from(found, candidates.count, high) >= k) {
    put_back(residual, workspace.indices, found, candidates);
    high = kAboveAll;
  }
  if (!decided) {
    // Too few or too many candidates, or a plan without them: search everything.
    const std::size_t bad = count_nonfinite(a, n);
    if (k > 0) emit(a, nullptr, n, find_cut(a, n, k, {0, kAboveAll}, nullptr), k, indices, values);
    return {bad, high};
  }
  const std::size_t bad = count_nonfinite(found, candidates.count);
  const Cut cut =
      find_cut(found, candidates.count, k, candidates.bracket, workspace.values + candidates.count);
  emit(found, workspace.indices, candidates.count, cut, k, indices, values);
  return {bad, high};
}

/// Candidates of the whole vector; none if the plan has none. `zeroes`: see `collect`.
inline TopkCandidates collect_all(const F32* x, F32* residual, std::size_t n, const TopkPlan& plan,
                                  bool zeroes, const TopkWorkspace& workspace) noexcept {
  if (plan.capacity == 0) {
    add_residual(x, residual, n);
    return {{0, kAboveAll}, 0, false};
  }
  Bracket bracket = sampled_bracket(x, residual, n, plan, workspace.values);
  if (!zeroes) bracket.high = kAboveAll;
  return collect(x, residual, 0, n, bracket, plan.capacity, workspace.indices, workspace.values);
}

}  // namespace
}  // namespace pydec
