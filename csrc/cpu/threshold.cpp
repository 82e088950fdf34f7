#include "pydec/threshold.h"

#include "cpu/select.h"

namespace pydec {
namespace {

std::size_t select_f32(const F32* x, F32* residual, std::size_t n, const ThresholdPlan& plan, U32* indices,
                       F32* values, float* sample, std::size_t& bad) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  std::size_t found = 0;
  if (plan.sample_lines != 0) {
    const std::uint32_t threshold =
        sampled_threshold(x, residual, n, plan.sample_lines, plan.sample_rank, sample);
    found = collect(x, residual, n, threshold, plan.most, indices, values);
  } else {
    add_residual(x, residual, n);
    const std::uint32_t key = find_cut(a, n, plan.sample_rank).key;
    const std::uint32_t threshold = key > kInfinityBits ? kInfinityBits : (key > 0 ? key : 1);
    found = collect(a, nullptr, n, threshold, plan.most, indices, values);
  }
  if (found >= plan.least && found <= plan.most) {
    bad = count_nonfinite(values, found);
  } else {
    bad = count_nonfinite(a, n);
    found = found < plan.least ? plan.least : plan.most;
    emit(a, nullptr, find_cut(a, n, found), found, indices, values);
  }
  if (residual != nullptr) {
    for (std::size_t j = 0; j < found; ++j) residual[indices[j]] = 0.0f;
  }
  return found;
}

}  // namespace

template <>
const ThresholdKernels& table<ThresholdKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ThresholdKernels kernels{.select_f32 = select_f32};
  return kernels;
}

}  // namespace pydec
