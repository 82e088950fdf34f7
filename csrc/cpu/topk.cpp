#include "pydec/topk.h"

#include "cpu/select.h"

namespace pydec {
namespace {

std::size_t select_f32(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices, F32* values,
                       const TopkPlan& plan, const TopkWorkspace& workspace) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  std::size_t bad = 0;
  std::size_t found = kOverflow;
  if (plan.capacity != 0) {
    const std::uint32_t threshold =
        sampled_threshold(x, residual, n, plan.sample_lines, plan.sample_rank, workspace.values);
    found = collect(x, residual, n, threshold, plan.capacity, workspace.indices, workspace.values);
  } else {
    add_residual(x, residual, n);
  }
  if (found != kOverflow && found >= k) {
    bad = count_nonfinite(workspace.values, found);
    emit(workspace.values, workspace.indices, find_cut(workspace.values, found, k), k, indices, values);
  } else {
    // Too few or too many candidates, or a plan without them: count digits over everything.
    bad = count_nonfinite(a, n);
    if (k > 0) emit(a, nullptr, find_cut(a, n, k), k, indices, values);
  }
  if (residual != nullptr) {
    for (std::size_t j = 0; j < k; ++j) residual[indices[j]] = 0.0f;
  }
  return bad;
}

std::uint32_t max_u32(const U32* indices, std::size_t k) noexcept {
  std::uint32_t largest = 0;
  for (std::size_t j = 0; j < k; ++j) largest = indices[j] > largest ? indices[j] : largest;
  return largest;
}

void scatter_f32(const U32* indices, const F32* values, std::size_t k, float weight, F32* out) noexcept {
  for (std::size_t j = 0; j < k; ++j) {
    const float term = weight * values[j];
    out[indices[j]] = out[indices[j]] + term;
  }
}

}  // namespace

template <>
const TopkKernels& table<TopkKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr TopkKernels kernels{
      .select_f32 = select_f32, .max_u32 = max_u32, .scatter_f32 = scatter_f32};
  return kernels;
}

}  // namespace pydec
