#include "pydec/topk.h"

#include "cpu/choose.h"

namespace pydec {
namespace {

Bracket bracket_f32(const F32* x, const F32* residual, std::size_t n, const TopkPlan& plan,
                    F32* sample) noexcept {
  return sampled_bracket(x, residual, n, plan, sample);
}

TopkCandidates collect_f32(const F32* x, F32* residual, std::size_t first, std::size_t last, Bracket bracket,
                           std::size_t capacity, U32* indices, F32* values) noexcept {
  return collect(x, residual, first, last, bracket, capacity, indices, values);
}

std::size_t finish_f32(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices, F32* values,
                       TopkCandidates candidates, const TopkWorkspace& workspace) noexcept {
  const Chosen chosen = choose(x, residual, n, k, indices, values, candidates, workspace);
  if (residual == nullptr) return chosen.bad;
  float unused = 0.0f;
  for (std::size_t j = 0; j < k; ++j) {
    // What is 0 already is not touched: its line left the caches long ago.
    F32* rest = magnitude_bits(values[j]) < chosen.high ? residual + indices[j] : &unused;
    *rest = 0.0f;
  }
  return chosen.bad;
}

std::size_t select_f32(const F32* x, F32* residual, std::size_t n, std::size_t k, U32* indices, F32* values,
                       const TopkPlan& plan, const TopkWorkspace& workspace) noexcept {
  const TopkCandidates candidates = collect_all(x, residual, n, plan, true, workspace);
  return finish_f32(x, residual, n, k, indices, values, candidates, workspace);
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
  static constexpr TopkKernels kernels{.select_f32 = select_f32,
                                       .bracket_f32 = bracket_f32,
                                       .collect_f32 = collect_f32,
                                       .finish_f32 = finish_f32,
                                       .max_u32 = max_u32,
                                       .scatter_f32 = scatter_f32};
  return kernels;
}

}  // namespace pydec
