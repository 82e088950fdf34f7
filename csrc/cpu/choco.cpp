#include "pydec/choco.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

/// Mixes and steps one block; returns the largest magnitude of x - estimate.
template <bool step>
std::uint32_t move(const ChocoState& at, const ChocoFactors& by, std::size_t n) noexcept {
  F32* x = at.x;
  const F32* estimate = at.estimate;
  const F32* mixed = at.mixed;
  const F32* gradient = at.gradient;
  const float gamma = by.gamma;
  const float back = -by.gamma;
  const float down = -by.rate;
  std::uint32_t largest = 0;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    float value = x[i] + gamma * mixed[i];
    value = value + back * estimate[i];
    if constexpr (step) value = value + down * gradient[i];
    x[i] = value;
    const std::uint32_t bits = magnitude_bits(value - estimate[i]);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/// Codes of x - estimate, and both estimates brought up to date; the block is in the first-level cache.
template <Int8Kind kind>
void publish(const ChocoState& at, const Int8Rule& rule, float own, std::size_t n,
             std::int8_t* codes) noexcept {
  const F32* x = at.x;
  F32* estimate = at.estimate;
  F32* mixed = at.mixed;
  const float inverse = rule.inverse;
  const float scale = rule.scale;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    const float d = x[i] - estimate[i];
    codes[i] = kind == Int8Kind::normal ? int8_code(d, inverse) : int8_code_tiny(d, inverse);
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    const float value = int8_value(scale, codes[i]);
    mixed[i] = mixed[i] + own * value;
    estimate[i] = estimate[i] + value;
  }
}

std::size_t int8_step_f32(const ChocoState& state, const ChocoFactors& factors, std::size_t n,
                          std::size_t block, std::int8_t* codes, F32* scales) noexcept {
  std::size_t bad = 0;
  for (std::size_t first = 0; first < n; first += block, ++scales) {
    const std::size_t length = n - first < block ? n - first : block;
    const bool step = state.gradient != nullptr;
    const ChocoState at{state.x + first, state.estimate + first, state.mixed + first,
                        step ? state.gradient + first : nullptr};
    const Int8Rule rule =
        int8_rule(step ? move<true>(at, factors, length) : move<false>(at, factors, length));
    *scales = rule.scale;
    switch (rule.kind) {
      case Int8Kind::normal:
        publish<Int8Kind::normal>(at, rule, factors.own, length, codes + first);
        break;
      case Int8Kind::bad:
        ++bad;
        __builtin_memset(codes + first, 0, length);
        break;
      case Int8Kind::zero:  // codes of 0, which the composition adds all the same: -0 becomes 0
      case Int8Kind::tiny:
        publish<Int8Kind::tiny>(at, rule, factors.own, length, codes + first);
        break;
    }
  }
  return bad;
}

}  // namespace

template <>
const ChocoKernels& table<ChocoKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ChocoKernels kernels{.int8_step_f32 = int8_step_f32};
  return kernels;
}

}  // namespace pydec
