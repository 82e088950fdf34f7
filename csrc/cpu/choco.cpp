#include "pydec/choco.h"

#include "cpu/decode.h"
#include "cpu/encode.h"

namespace pydec {
namespace {

/// x + gamma * mixed - gamma * estimate.
inline Register mixed_of(Register x, Register mixed, Register estimate, float gamma) noexcept {
  return (x + gamma * mixed) + (-gamma) * estimate;
}

/// The step: mixes, moves along the gradient, gives x - estimate, and adds what is sent to both estimates.
template <bool step>
struct Step {
  static constexpr bool kSettlesZeros = true;  // what adds them does so all the same: -0 becomes 0
  ChocoState at;
  ChocoFactors by;

  Step from(std::size_t n) const noexcept {
    return {{at.x + n, at.estimate + n, at.mixed + n, step ? at.gradient + n : nullptr}, by};
  }
  void ahead(std::size_t) const noexcept {}
  Register first(std::size_t i) const noexcept {
    const Register estimate = load(at.estimate + i);
    Register x = mixed_of(load(at.x + i), load(at.mixed + i), estimate, by.gamma);
    if constexpr (step) x = x + (-by.rate) * load(at.gradient + i);
    store(x, at.x + i);
    return x - estimate;
  }
  Register again(std::size_t i) const noexcept { return load(at.x + i) - load(at.estimate + i); }
  void settle(std::size_t i, Register, Register value) const noexcept {
    store(load(at.mixed + i) + by.own * value, at.mixed + i);
    store(load(at.estimate + i) + value, at.estimate + i);
  }
  Step staged(std::size_t from, std::size_t rest, TailRoom& room) const noexcept {
    return {
        {stage(at.x + from, rest, room, 0), stage(at.estimate + from, rest, room, 1),
         stage(at.mixed + from, rest, room, 2), step ? stage(at.gradient + from, rest, room, 3) : nullptr},
        by};
  }
  void unstage(std::size_t from, std::size_t rest, const TailRoom& room) const noexcept {
    __builtin_memcpy(at.x + from, room[0], rest * sizeof(float));
    __builtin_memcpy(at.estimate + from, room[1], rest * sizeof(float));
    __builtin_memcpy(at.mixed + from, room[2], rest * sizeof(float));
  }
};

template <Codec codec>
std::size_t step_f32(const ChocoState& state, const ChocoFactors& factors, std::size_t n, std::size_t block,
                     const Draw* draw, std::uint8_t* codes, F32* scales, bool stream) noexcept {
  const EncodeJob job{n, block, draw, codes, scales, stream};
  return state.gradient != nullptr ? encode_all<codec>(Step<true>{state, factors}, job)
                                   : encode_all<codec>(Step<false>{state, factors}, job);
}

/// Adds the own message to the estimate and mixes; n is a multiple of the group.
template <Codec codec>
void finish_groups(const ChocoState& at, float gamma, const std::uint8_t* codes, float scale,
                   std::size_t n) noexcept {
  constexpr std::size_t kGroup = group_of(codec);
  const Values<codec, false> values(scale);
  for (std::size_t g = 0; g < n / kGroup; ++g) {
    for (int p = 0; p < static_cast<int>(kGroup / kLine); ++p) {
      for (std::size_t r = 0; r < kSteps; ++r) {
        const std::size_t i = g * kGroup + static_cast<std::size_t>(p) * kLine + r * kStep;
        const Register value = values.of(codes + g * kLine, p, r);
        const Register estimate = load(at.estimate + i) + value;
        store(estimate, at.estimate + i);
        store(mixed_of(load(at.x + i), load(at.mixed + i), estimate, gamma), at.x + i);
      }
    }
  }
}

template <Codec codec>
void absorb_f32(const ChocoState& state, float gamma, const QuantMessage* messages, std::size_t m,
                std::size_t n, std::size_t block) noexcept {
  constexpr std::size_t kGroup = group_of(codec);
  for_pieces(n, block, [=](std::size_t index, std::size_t first, std::size_t count) {
    const Step<false> at{{state.x + first, state.estimate + first, state.mixed + first, nullptr}, {}};
    accumulate_piece<codec>(messages, m, index, first, count, at.at.mixed);
    const std::uint8_t* codes = messages[0].codes + first / kGroup * kLine;
    const float scale = messages[0].scales[index];
    const std::size_t whole = count / kGroup * kGroup;
    finish_groups<codec>(at.at, gamma, codes, scale, whole);
    if (whole == count) return;
    TailRoom room;
    std::uint8_t bytes[kLine] = {};
    __builtin_memcpy(bytes, codes + whole / kGroup * kLine, code_bytes(codec, count - whole));
    finish_groups<codec>(at.staged(whole, count - whole, room).at, gamma, bytes, scale, kGroup);
    at.unstage(whole, count - whole, room);
  });
}

}  // namespace

template <>
const ChocoKernels& table<ChocoKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr ChocoKernels kernels{.step_f32 = PYDEC_EACH_CODEC(step_f32),
                                        .absorb_f32 = PYDEC_EACH_CODEC(absorb_f32)};
  return kernels;
}

}  // namespace pydec
