// Blockwise 8-bit quantisation: one float32 scale for every `block` elements, codes -127..127.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// One encoded vector and its weight.
struct Int8Message {
  const std::int8_t* codes;
  const F32* scales;
  float weight;
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs
/// and outputs do not overlap; block >= 1; nothing is checked, thrown or allocated. A vector of n elements
/// has ceil(n / block) scales; the last block may be short.
struct Int8Kernels {
  /// scales[b] = max|x in block b| / 127, codes[i] = rint(x[i] * (1 / scale)), nearest even; a scale
  /// of 0 has codes 0. A block with a NaN or an infinity gets the scale NaN and codes 0.
  /// Returns the number of such blocks.
  std::size_t (*encode_f32)(const F32* x, std::size_t n, std::size_t block, std::int8_t* codes,
                            F32* scales) noexcept;
  /// out[i] = scales[i / block] * codes[i].
  void (*decode_f32)(const std::int8_t* codes, const F32* scales, std::size_t n, std::size_t block,
                     F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * (scale_k * code_k[i]), rounding after every product
  /// and every addition. One pass over `out`.
  void (*accumulate_f32)(const Int8Message* messages, std::size_t m, std::size_t n, std::size_t block,
                         F32* out) noexcept;
};

}  // namespace pydec
