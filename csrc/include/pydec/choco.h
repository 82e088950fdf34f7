// One step of CHOCO with int8 codes in one pass.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
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

/// Contract: pointers are valid for the stated length and may be unaligned; no two arrays overlap; block >=
/// 1; nothing is checked, thrown or allocated.
struct ChocoKernels {
  /// Element by element, rounding after every operation:
  ///   x        = (x + gamma * mixed) + (-gamma) * estimate
  ///   x        = x + (-rate) * gradient, unless gradient is null
  ///   d        = x - estimate, encoded as Int8Kernels::encode_f32 does: codes, scales
  ///   mixed    = mixed + own * (scale * code)
  ///   estimate = estimate + scale * code
  /// A block in which d has a NaN or an infinity gets the scale NaN and codes 0, and leaves `mixed` and
  /// `estimate` as they are. Returns the number of such blocks.
  std::size_t (*int8_step_f32)(const ChocoState& state, const ChocoFactors& factors, std::size_t n,
                               std::size_t block, std::int8_t* codes, F32* scales) noexcept;
};

}  // namespace pydec
