#include "pydec/threshold.h"

#include "cpu/select.h"

namespace pydec {
namespace {

Bracket bracket_f32(const F32* x, const F32* residual, std::size_t n, const ThresholdPlan& plan,
                    float* sample) noexcept {
  const std::size_t size = plan.sample_lines * kLine;
  take_sample(x, residual, n, plan.sample_lines, sample);
  const std::uint32_t low =
      as_threshold(find_cut(sample, size, plan.sample_rank, {0, kAboveAll}, sample).key);
  return {low, residual != nullptr ? low : kAboveAll};  // all that is collected is sent
}

std::size_t finish_f32(const F32* x, F32* residual, std::size_t n, const ThresholdPlan& plan,
                       TopkCandidates found, U32* indices, F32* values, std::size_t& bad) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  if (found.complete && found.count >= plan.least) {
    bad = count_nonfinite(values, found.count);
  } else {
    put_back(residual, indices, values, found);
    found.bracket.high = kAboveAll;
    bad = count_nonfinite(a, n);
    found.count = found.complete ? plan.least : plan.most;
    emit(a, nullptr, n, find_cut(a, n, found.count, {0, kAboveAll}, nullptr), found.count, indices, values);
  }
  if (residual != nullptr && found.bracket.high >= kAboveAll) {
    for (std::size_t j = 0; j < found.count; ++j) residual[indices[j]] = 0.0f;
  }
  return found.count;
}

std::size_t select_f32(const F32* x, F32* residual, std::size_t n, const ThresholdPlan& plan, U32* indices,
                       F32* values, float* sample, std::size_t& bad) noexcept {
  TopkCandidates found{};
  if (plan.sample_lines != 0) {
    const Bracket bracket = bracket_f32(x, residual, n, plan, sample);
    found = collect(x, residual, 0, n, bracket, plan.most, indices, values);
  } else {
    const F32* a = residual != nullptr ? residual : x;
    add_residual(x, residual, n);
    const std::uint32_t low = as_threshold(find_cut(a, n, plan.sample_rank, {0, kAboveAll}, nullptr).key);
    found = collect(a, nullptr, 0, n, {low, kAboveAll}, plan.most, indices, values);
  }
  return finish_f32(x, residual, n, plan, found, indices, values, bad);
}

}  // namespace

template <>
const ThresholdKernels& table<ThresholdKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ThresholdKernels kernels{
      .select_f32 = select_f32, .bracket_f32 = bracket_f32, .finish_f32 = finish_f32};
  return kernels;
}

}  // namespace pydec
