// Rounds of CHOCO on quantised differences: the whole local step in one pass, or a round's end in one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/quant.h"
#include "pydec/target.h"

namespace pydec {

/// The vectors of one rank: its model, its public estimate and the weighted sum of all its neighbours'.
struct ChocoState {
  F32* x;
  F32* estimate;
  F32* mixed;
  const F32* gradient;  ///< null: no local step
};

struct ChocoFactors {
  float gamma;  ///< of the mixing
  float own;    ///< the rank's weight for itself
  float rate;   ///< of the local step
};

/// Contract: as that of QuantEncoders and QuantDecoders; no two arrays overlap, but messages may.
struct ChocoKernels {
  /// Element by element, rounding after every operation:
  ///   x        = (x + gamma * mixed) + (-gamma) * estimate
  ///   x        = x + (-rate) * gradient, unless gradient is null
  ///   d        = x - estimate, encoded as QuantEncoders::encode_f32 does: codes, scales
  ///   mixed    = mixed + own * (scale * level)
  ///   estimate = estimate + scale * level
  /// A block in which d has a NaN or an infinity, or whose scale would decode to infinity, gets the scale NaN
  /// and codes 0, and leaves `mixed` and `estimate` as they are. Returns the number of such blocks.
  std::size_t (*step_f32[kCodecs])(const ChocoState& state, const ChocoFactors& factors, std::size_t n,
                                   std::size_t block, const Draw* draw, std::uint8_t* codes, F32* scales,
                                   bool stream) noexcept;
  /// What is left of a round when its m >= 1 messages are there, the own one first:
  ///   mixed    = mixed + weight_k * (scale_k * level_k), for k = 0..m-1 in order
  ///   estimate = estimate + scale_0 * level_0
  ///   x        = (x + gamma * mixed) + (-gamma) * estimate
  void (*absorb_f32[kCodecs])(const ChocoState& state, float gamma, const QuantMessage* messages,
                              std::size_t m, std::size_t n, std::size_t block) noexcept;
};

}  // namespace pydec
