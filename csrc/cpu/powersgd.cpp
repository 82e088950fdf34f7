#include "pydec/powersgd.h"

#include "cpu/lanes.h"
#include "cpu/powersgd_pass.h"
#include "pydec/element_quant.h"

namespace pydec {
namespace {

constexpr std::size_t kLineElements = 16;
constexpr std::size_t kSampleLines = 1024;

void start_f32(const F32* x, const F32* residual, std::size_t n, std::uint64_t seed, std::size_t count,
               F32* start) noexcept {
  std::uint32_t lanes[kLineElements];
  for (std::size_t j = 0; j < kLineElements; ++j) lanes[j] = static_cast<std::uint32_t>(j);
  const std::size_t lines = n / kLineElements + (n % kLineElements != 0 ? 1 : 0);
  const std::size_t stride = lines / kSampleLines > 1 ? lines / kSampleLines : 1;
  for (std::size_t line = 0; line < lines; line += stride) {
    const std::size_t first = line * kLineElements;
    const std::size_t length = n - first < kLineElements ? n - first : kLineElements;
    for (std::size_t j = 0; j < length; ++j) {
      const float a = residual != nullptr ? x[first + j] + residual[first + j] : x[first + j];
      const std::uint32_t h = (lanes[j] ^ bits_of(a)) * 0x9e3779b1u;
      lanes[j] = h ^ (h >> 15);
    }
  }
  std::uint64_t key = draw_seed(seed) ^ n;
  for (std::size_t j = 0; j < kLineElements; ++j) key = mix64(key + lanes[j]);
  for (std::size_t i = 0; i < count; ++i) {
    const auto random = static_cast<std::int32_t>(mix64(key + (i + 1) * kGolden) >> 40);
    start[i] = static_cast<float>(2 * random + 1 - (1 << 24)) * 0x1p-24f;
  }
}

/// What is left of a direction after Gram-Schmidt is noise of the products in float below this share of it.
constexpr double kLeastShare = 0x1p-18;

/// Gram-Schmidt on the rows of left; the rows of right undergo the same combinations.
void orthonormalise(const PowersgdWorkspace& work, const PowersgdShape& shape) noexcept {
  const std::size_t rows = powersgd_rows(shape.n, shape.columns);
  for (std::size_t j = 0; j < shape.rank; ++j) {
    double* p = work.left + j * rows;
    double* q = work.right + j * shape.columns;
    const double before = inner(p, p, rows);
    for (int round = 0; round < 2; ++round) {
      for (std::size_t other = 0; other < j; ++other) {
        const double share = inner(p, work.left + other * rows, rows);
        subtract(p, share, work.left + other * rows, rows);
        subtract(q, share, work.right + other * shape.columns, shape.columns);
      }
    }
    const double after = inner(p, p, rows);
    // Comparisons are false for NaN, and a vector that holds one is refused.
    const double scale = after > before * (kLeastShare * kLeastShare) ? 1.0 / __builtin_sqrt(after) : 0.0;
    multiply(p, scale, rows);
    multiply(q, scale, shape.columns);
  }
}

/// Multiplies by the power of two that brings the largest magnitude to [1, 4), so that products with rows of
/// any size have a float's range to themselves. Zeros stay.
void bring_to_one(F32* direction, std::size_t n) noexcept {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t size = magnitude_bits(direction[i]);
    largest = size > largest ? size : largest;
  }
  std::uint32_t exponent = largest >> 23;
  exponent = exponent < 1 ? 1 : (exponent > 253 ? 253 : exponent);
  const float factor = float_of((254 - exponent) << 23);
  for (std::size_t i = 0; i < n; ++i) direction[i] *= factor;
}

void round_to(const double* from, std::size_t n, F32* to) noexcept {
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

std::size_t iterate_f32(const F32* x, F32* residual, const PowersgdShape& shape, F32* left, F32* right,
                        const PowersgdWorkspace& workspace) noexcept {
  const std::size_t rows = powersgd_rows(shape.n, shape.columns);
  for (std::size_t j = 0; j < shape.rank; ++j) bring_to_one(right + j * shape.columns, shape.columns);
  const std::size_t bad = pass(x, residual, shape, right, workspace);
  if (bad != 0) return bad;
  orthonormalise(workspace, shape);
  round_to(workspace.left, shape.rank * rows, left);
  round_to(workspace.right, shape.rank * shape.columns, right);
  return 0;
}

constexpr std::size_t kProductRows = 4;     // rows that share the loads of the right factor
constexpr std::size_t kProductTile = 1024;  // columns: their elements of these rows stay in the first level

/// A tile of `rows` rows and `length` columns: out = P Q^T, or out + weight * P Q^T.
template <std::size_t rank, std::size_t rows, bool adds>
void add_product(const PowersgdMessage& message, std::size_t all_rows, std::size_t columns, std::size_t row,
                 std::size_t column, std::size_t length, F32* out) noexcept {
  const F32* right = message.right + column;
  const float weight = message.weight;
  float p[rows][rank];
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < rank; ++j) p[i][j] = message.left[j * all_rows + row + i];
  }
  std::size_t c = 0;
  for (; c + kLanesWidth <= length; c += kLanesWidth) {
    Lanes q[rank];
#pragma GCC unroll 8
    for (std::size_t j = 0; j < rank; ++j) q[j] = load_lanes(right + j * columns + c);
#pragma GCC unroll 4
    for (std::size_t i = 0; i < rows; ++i) {
      Lanes value = p[i][0] * q[0];
#pragma GCC unroll 8
      for (std::size_t j = 1; j < rank; ++j) value = value + p[i][j] * q[j];
      F32* to = out + i * columns + c;
      if constexpr (adds) {
        if (c % kLineElements == 0) __builtin_prefetch(to - rows * columns, 1, 2);
        value = load_lanes(to) + weight * value;
      }
      store_lanes(value, to);
    }
  }
  for (; c < length; ++c) {
    for (std::size_t i = 0; i < rows; ++i) {
      float value = p[i][0] * right[c];
      for (std::size_t j = 1; j < rank; ++j) value = value + p[i][j] * right[j * columns + c];
      F32* to = out + i * columns + c;
      if constexpr (adds) value = *to + weight * value;
      *to = value;
    }
  }
}

template <std::size_t rows, bool adds>
void add_tile(const PowersgdMessage& message, std::size_t all_rows, std::size_t columns, std::size_t row,
              std::size_t column, std::size_t length, F32* out) noexcept {
  switch (message.rank) {
    case 1:
      return add_product<1, rows, adds>(message, all_rows, columns, row, column, length, out);
    case 2:
      return add_product<2, rows, adds>(message, all_rows, columns, row, column, length, out);
    case 3:
      return add_product<3, rows, adds>(message, all_rows, columns, row, column, length, out);
    case 4:
      return add_product<4, rows, adds>(message, all_rows, columns, row, column, length, out);
    case 5:
      return add_product<5, rows, adds>(message, all_rows, columns, row, column, length, out);
    case 6:
      return add_product<6, rows, adds>(message, all_rows, columns, row, column, length, out);
    case 7:
      return add_product<7, rows, adds>(message, all_rows, columns, row, column, length, out);
    default:
      return add_product<8, rows, adds>(message, all_rows, columns, row, column, length, out);
  }
}

/// All messages on `rows` rows of `length` elements.
template <std::size_t rows, bool adds>
void add_rows(const PowersgdMessage* messages, std::size_t m, std::size_t all_rows, std::size_t columns,
              std::size_t row, std::size_t length, F32* out) noexcept {
  for (std::size_t column = 0; column < length; column += kProductTile) {
    const std::size_t tile = length - column < kProductTile ? length - column : kProductTile;
    F32* to = out + row * columns + column;
    for (std::size_t k = 0; k < m; ++k) {
      add_tile<rows, adds>(messages[k], all_rows, columns, row, column, tile, to);
    }
  }
}

template <bool adds>
void add_products(const PowersgdMessage* messages, std::size_t m, std::size_t n, std::size_t columns,
                  F32* out) noexcept {
  const std::size_t rows = powersgd_rows(n, columns);
  const std::size_t full = n / columns;
  if (full < rows) add_rows<1, adds>(messages, m, rows, columns, full, n - full * columns, out);
  std::size_t row = full;
  for (; row % kProductRows != 0; --row) {
    add_rows<1, adds>(messages, m, rows, columns, row - 1, columns, out);
  }
  for (; row > 0; row -= kProductRows) {
    add_rows<kProductRows, adds>(messages, m, rows, columns, row - kProductRows, columns, out);
  }
}

void decode_f32(const PowersgdMessage& message, std::size_t n, std::size_t columns, F32* out) noexcept {
  add_products<false>(&message, 1, n, columns, out);
}

void accumulate_f32(const PowersgdMessage* messages, std::size_t m, std::size_t n, std::size_t columns,
                    F32* out) noexcept {
  add_products<true>(messages, m, n, columns, out);
}

}  // namespace

template <>
const PowersgdKernels& table<PowersgdKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr PowersgdKernels kernels{.start_f32 = start_f32,
                                           .iterate_f32 = iterate_f32,
                                           .decode_f32 = decode_f32,
                                           .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
