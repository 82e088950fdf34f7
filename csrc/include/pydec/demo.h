// The largest coefficients of a cosine transform, tile by tile: each tile is read, transformed, cut down and
// put back while it lies in the first-level cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

constexpr std::size_t kMaxDemoTile = 64 * 64;

/// How coefficients are sent: as they are, rounded to nearest even, or as int8 codes with a scale for the
/// tile.
enum class DemoValues : int { float32, bf16, int8 };

/// n elements as tiles of side x side, row after row; what the last one lacks is zeros.
struct DemoShape {
  std::size_t n;
  unsigned log_side;  ///< 4, 5 or 6
  std::size_t k;      ///< coefficients of every tile, 1..side * side
  DemoValues values;
};

/// Encoded tiles and their weight.
struct DemoMessage {
  const std::uint8_t* records;
  float weight;
};

/// Memory of the caller, reused from call to call.
constexpr std::size_t kDemoSpare = 64;  // what is collected may be followed by anything
struct alignas(64) DemoWorkspace {
  float tile[kMaxDemoTile];
  float spectrum[kMaxDemoTile];
  float values[kMaxDemoTile];
  float candidates[kMaxDemoTile + kDemoSpare];
  std::uint32_t places[kMaxDemoTile + kDemoSpare];
  std::uint16_t indices[kMaxDemoTile];
};

/// What an encoder refuses.
struct DemoBad {
  std::size_t nonfinite;  ///< elements of a that are NaN or infinite
  std::size_t large;      ///< tiles whose largest coefficient reaches the limit
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and outputs
/// do not overlap; nothing is checked but by `check`, nothing is thrown or allocated. Tiles do not depend on
/// one another.
///
/// The transform is the orthonormal DCT-II in both directions of the tile: coefficient (u, v), u along the
/// columns' direction and v along the rows', has the index v * side + u. It is computed in float by the
/// factorisation that csrc/cpu/dct.h states, rounding after every operation, so its bits depend on nothing
/// else. A decoded tile is the sum of y * cos((2c + 1) v pi / 2 side) over its coefficients in ascending
/// order of their indices, followed by the transposed factorisation along u.
///
/// The record of a tile: k values in ascending order of their indices (float32, bfloat16 or int8), for int8
/// the scale as a float32, the indices as 2 * log_side bits each, lowest first, and zero bits up to a whole
/// byte.
struct DemoKernels {
  /// With a = x (residual null) or a = x + beta * residual, rounding twice: one record for every tile. The
  /// residual becomes a minus the decoded record. A tile that holds a NaN or an infinity, or a coefficient
  /// that reaches the limit, has a record of zeros, and its residual is a.
  DemoBad (*encode_f32)(const F32* x, F32* residual, float beta, const DemoShape& shape,
                        std::uint8_t* records, DemoWorkspace& workspace) noexcept;
  /// The first tile whose record is none: indices that do not increase, bits after them, values that are not
  /// finite or reach the limit, an int8 code of -128. The number of tiles if there is none.
  std::size_t (*check)(const std::uint8_t* records, const DemoShape& shape,
                       DemoWorkspace& workspace) noexcept;
  /// out = the decoded tiles. Records that `check` refuses give any numbers.
  void (*decode_f32)(const std::uint8_t* records, const DemoShape& shape, F32* out,
                     DemoWorkspace& workspace) noexcept;
  /// For j = 0..m-1 in order: out[i] += weight_j * decoded_j[i], rounding after the product and after the
  /// sum, in one sweep over the tiles.
  void (*accumulate_f32)(const DemoMessage* messages, std::size_t m, const DemoShape& shape, F32* out,
                         DemoWorkspace& workspace) noexcept;
};

PYDEC_ELEMENT std::size_t demo_tiles(std::size_t n, unsigned log_side) {
  const std::size_t tile = std::size_t{1} << (2 * log_side);
  return n / tile + (n % tile != 0 ? 1 : 0);
}

/// Bytes of a tile's record.
PYDEC_ELEMENT std::size_t demo_record(std::size_t k, unsigned log_side, DemoValues values) {
  const std::size_t places = (k * 2 * log_side + 7) / 8;
  switch (values) {
    case DemoValues::int8:
      return k + sizeof(float) + places;
    case DemoValues::bf16:
      return 2 * k + places;
    default:
      return 4 * k + places;
  }
}

/// Bits of the magnitude that coefficients stay below, 2^(128 - 2 log_side): nothing that is computed from
/// smaller ones is infinite.
PYDEC_ELEMENT std::uint32_t demo_limit(unsigned log_side) {
  return (127u + 128u - 2u * log_side) << 23;
}

}  // namespace pydec
