// The k largest entries with 8-bit values: k int8 codes, a scale for every `block` of them, and packed gaps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/gaps.h"
#include "pydec/target.h"
#include "pydec/topk.h"

namespace pydec {

/// Where the parts of a message are.
struct TopkInt8Parts {
  F32* scales;           ///< ceil(k / block)
  std::uint8_t* codes;   ///< k, each an int8
  std::uint8_t* widths;  ///< gap_groups(k)
  std::uint8_t* packed;  ///< the groups
};

/// Bytes of everything but the groups; `block` >= 1.
PYDEC_ELEMENT std::size_t topk_int8_fixed(std::size_t k, std::size_t block) {
  return 4 * (k / block + (k % block != 0 ? 1 : 0)) + k + gap_groups(k);
}

/// The parts of a message that starts at `body`.
PYDEC_ELEMENT TopkInt8Parts topk_int8_parts(std::uint8_t* body, std::size_t k, std::size_t block) {
  std::uint8_t* codes = body + 4 * (k / block + (k % block != 0 ? 1 : 0));
  return {reinterpret_cast<F32*>(body), codes, codes + k, codes + k + gap_groups(k)};
}

/// One message and its weight.
struct TopkInt8Message {
  TopkInt8Parts parts;
  const GapStart* starts;  ///< one for each group, as GapKernels::check makes them
  std::size_t k;
  std::size_t block;
  float weight;
};

/// One group of a message, unpacked.
struct TopkInt8Cursor {
  std::uint32_t indices[kGapGroup];
  float values[kGapGroup];
  std::size_t group;  ///< that is unpacked next
  std::size_t at;     ///< entry that is next
  std::size_t count;
};

/// What the values of a message can be wrong in; 0 is what an encoder makes.
enum TopkInt8Fault : unsigned {
  kBadTopkScale = 8,  ///< negative, NaN, infinite, or so large that 127 of it are infinite
  kBadTopkCode = 16,  ///< -128, or a block whose largest code is not the one that its scale makes
};

/// What encoding came to.
struct TopkInt8Encoded {
  std::size_t bytes;      ///< of the groups
  std::size_t nonfinite;  ///< NaN and infinite elements of a
  std::size_t too_large;  ///< blocks whose scale would decode to infinity
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and outputs
/// do not overlap; block is a positive multiple of 16; nothing is thrown or allocated, and nothing is checked
/// but by `check`. Separate ranges [first, last) of `out` may be worked on at the same time.
struct TopkInt8Kernels {
  /// With a = x (residual null) or a = x + residual: the k entries that TopkKernels::select_f32 selects,
  /// their values quantised block after block with scale = max|a| / 127 and code = rint(a * (1 / scale)). A
  /// residual is overwritten by a, less scale * code at the selected places; if some element cannot be
  /// encoded, by a alone. `indices` and `values` have room for k.
  TopkInt8Encoded (*encode_f32)(const F32* x, F32* residual, std::size_t n, std::size_t k, std::size_t block,
                                const TopkPlan& plan, const TopkWorkspace& workspace, U32* indices,
                                F32* values, const TopkInt8Parts& out) noexcept;
  /// The same from candidates that TopkKernels::collect_f32 left in the workspace, with a bracket whose high
  /// end is kAboveAll.
  TopkInt8Encoded (*finish_f32)(const F32* x, F32* residual, std::size_t n, std::size_t k, std::size_t block,
                                TopkCandidates candidates, const TopkWorkspace& workspace, U32* indices,
                                F32* values, const TopkInt8Parts& out) noexcept;
  /// Faults of scales and codes.
  unsigned (*check)(const F32* scales, const std::uint8_t* codes, std::size_t k, std::size_t block) noexcept;
  /// out[first..last) = 0, and the values scale * code at their indices.
  void (*decode_f32)(const TopkInt8Message& message, std::size_t first, std::size_t last,
                     TopkInt8Cursor& cursor, F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * (scale * code) at the indices of message k, rounding after
  /// every product and after the sum. One sweep over `out`. There is one cursor for each message.
  void (*accumulate_f32)(const TopkInt8Message* messages, std::size_t m, std::size_t first, std::size_t last,
                         TopkInt8Cursor* cursors, F32* out) noexcept;
};

}  // namespace pydec
