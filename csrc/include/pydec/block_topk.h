// The k entries of largest magnitude of every block: no step looks at more than one block.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

using U16 = std::uint16_t __attribute__((aligned(1)));

constexpr std::size_t kMaxTopkBlock = std::size_t{1} << 16;  // indices within a block are uint16

/// Shape of a selection: k of every `block` elements, and of a last block of L elements ceil(k * L / block).
struct BlockTopkShape {
  std::size_t n;
  std::size_t block;  ///< 1..kMaxTopkBlock
  std::size_t k;      ///< 1..block
};

/// One encoded vector and its weight.
struct BlockTopkMessage {
  const U16* indices;
  const F32* values;
  float weight;
};

/// Memory of the caller, reused from call to call; `block` elements each.
struct BlockTopkWorkspace {
  std::uint32_t* keys;
  std::uint16_t* places;
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and outputs
/// do not overlap; nothing is checked but by `check`, nothing is thrown or allocated.
struct BlockTopkKernels {
  /// With a = x (residual null) or a = x + residual: in every block the entries of largest |a|, ties to the
  /// lowest index and NaN above infinity, in ascending order of their indices, which count from the block's
  /// start. A residual is overwritten by a with the selected entries set to 0. Returns how many elements of
  /// a are NaN or infinite.
  std::size_t (*select_f32)(const F32* x, F32* residual, const BlockTopkShape& shape, U16* indices,
                            F32* values, const BlockTopkWorkspace& workspace) noexcept;
  /// The first block whose indices do not increase or leave the block, or the number of blocks.
  std::size_t (*check)(const U16* indices, const BlockTopkShape& shape) noexcept;
  /// out = 0, and the values at their places. Indices have been checked.
  void (*decode_f32)(const U16* indices, const F32* values, const BlockTopkShape& shape, F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * value_k, rounding after the product and after the sum, in
  /// one sweep over the blocks. Indices have been checked.
  void (*accumulate_f32)(const BlockTopkMessage* messages, std::size_t m, const BlockTopkShape& shape,
                         F32* out) noexcept;
};

/// Entries that are selected from a block of `length` <= shape.block elements.
PYDEC_ELEMENT std::size_t block_topk_count(std::size_t k, std::size_t block, std::size_t length) {
  return (k * length + block - 1) / block;
}

}  // namespace pydec
