#include "pydec/threshold.h"

#include "cpu/select.h"

namespace pydec {
namespace {

std::size_t select_f32(const F32* x, F32* residual, std::size_t n, const ThresholdPlan& plan, U32* indices,
                       F32* values, float* sample, std::size_t& bad) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  Bracket bracket{1, kAboveAll};
  TopkCandidates found{};
  if (plan.sample_lines != 0) {
    const std::size_t size = plan.sample_lines * kLine;
    take_sample(x, residual, n, plan.sample_lines, sample);
    bracket.low = as_threshold(find_cut(sample, size, plan.sample_rank, {0, kAboveAll}, sample).key);
    bracket.high = residual != nullptr ? bracket.low : kAboveAll;  // all that is collected is sent
    found = collect(x, residual, 0, n, bracket, plan.most, indices, values);
  } else {
    add_residual(x, residual, n);
    bracket.low = as_threshold(find_cut(a, n, plan.sample_rank, {0, kAboveAll}, nullptr).key);
    found = collect(a, nullptr, 0, n, bracket, plan.most, indices, values);
  }
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

}  // namespace

template <>
const ThresholdKernels& table<ThresholdKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ThresholdKernels kernels{.select_f32 = select_f32};
  return kernels;
}

}  // namespace pydec
