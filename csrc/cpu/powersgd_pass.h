// One pass over a matrix A: P = A Q0 in float and A^T P in double. Bands of rows are read from memory once;
// the products with A^T find them in the second-level cache.
//
// P needs little accuracy, because the result is a projection onto whatever P spans. A^T P needs much: the
// orthonormalisation subtracts nearly equal numbers where the directions of P are nearly parallel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/lanes.h"
#include "cpu/loop.h"
#include "cpu/sums.h"
#include "pydec/powersgd.h"

namespace pydec {
namespace {

// Lanes of an inner product, whatever the register width: the order of additions must not depend on the CPU.
constexpr std::size_t kDotLanes = 16;
constexpr std::size_t kDotRegisters = kDotLanes / kLanesWidth;
constexpr std::size_t kGroupRank = 4;  // directions that are treated at once
#if defined(__AVX512F__)
constexpr std::size_t kDotRows = 4;
#else
constexpr std::size_t kDotRows = 1;  // 16 registers hold no more sums
#endif
constexpr std::size_t kOuterRows = 4;
constexpr std::size_t kOuterTile = 512;  // columns: 16 KiB of sums in double stay in the first-level cache
// Elements of a band: rows that share the loads and stores of these sums. This band and the next one, of x
// and of the residual, stay in the second-level cache.
constexpr std::size_t kBand = std::size_t{1} << 15;

double inner(const double* x, const double* y, std::size_t n) noexcept {
  Doubles sum[kRegisters] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t part = 0; part < kRegisters; ++part) {
      Doubles a;
      Doubles b;
      __builtin_memcpy(&a, x + i + part * kWidth, sizeof a);
      __builtin_memcpy(&b, y + i + part * kWidth, sizeof b);
      sum[part] += a * b;
    }
  }
  double lane[kLanes];
  __builtin_memcpy(lane, sum, sizeof lane);
  for (std::size_t j = 0; i < n; ++i, ++j) lane[j] += x[i] * y[i];
  return sum_of_lanes(lane);
}

void subtract(double* x, double factor, const double* y, std::size_t n) noexcept {
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) x[i] -= factor * y[i];
}

void multiply(double* x, double factor, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) x[i] *= factor;
}

/// Rows of `columns` elements, `length` of which exist (fewer in a last row only). The lines `ahead` elements
/// behind those that are read are asked for: memory must not rest while the arithmetic works on what is
/// cached.
struct Rows {
  const F32* x;
  F32* residual;  ///< null, or becomes x + residual
  std::size_t columns;
  std::size_t length;
  std::size_t ahead;
};

inline void prefetch_second(const F32* line) noexcept {
  __builtin_prefetch(line, 0, 2);
}

/// Inner products of `rows` rows with `ranks` directions: products[j * stride + i].
template <std::size_t rows, std::size_t ranks, bool adds>
void dots(const Rows& a, const F32* right, double* products, std::size_t stride) noexcept {
  Lanes sum[rows][ranks][kDotRegisters] = {};
  std::size_t c = 0;
  for (; c + kDotLanes <= a.length; c += kDotLanes) {
#pragma GCC unroll 4
    for (std::size_t part = 0; part < kDotRegisters; ++part) {
      const std::size_t at = c + part * kLanesWidth;
      Lanes q[ranks];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < ranks; ++j) q[j] = load_lanes(right + j * a.columns + at);
#pragma GCC unroll 4
      for (std::size_t i = 0; i < rows; ++i) {
        const F32* x = a.x + i * a.columns + at;
        Lanes value = load_lanes(x);
        if constexpr (adds) {
          if (part == 0) prefetch_second(x + a.ahead);
          F32* rest = a.residual + i * a.columns + at;
          value = value + load_lanes(rest);
          store_lanes(value, rest);
        }
#pragma GCC unroll 4
        for (std::size_t j = 0; j < ranks; ++j) sum[i][j][part] += value * q[j];
      }
    }
  }
  for (std::size_t i = 0; i < rows; ++i) {
    float lane[ranks][kDotLanes];
    for (std::size_t j = 0; j < ranks; ++j) __builtin_memcpy(lane[j], sum[i][j], sizeof lane[j]);
    for (std::size_t k = c; k < a.length; ++k) {
      float value = a.x[i * a.columns + k];
      if constexpr (adds) {
        F32& rest = a.residual[i * a.columns + k];
        value = value + rest;
        rest = value;
      }
      for (std::size_t j = 0; j < ranks; ++j) lane[j][k - c] += value * right[j * a.columns + k];
    }
    for (std::size_t j = 0; j < ranks; ++j) {
      for (std::size_t half = kDotLanes / 2; half > 0; half /= 2) {
        for (std::size_t k = 0; k < half; ++k) lane[j][k] += lane[j][k + half];
      }
      products[j * stride + i] = static_cast<double>(lane[j][0]);
    }
  }
}

/// sums[j * columns + c] += sum_i a[i][c] * factors[j * stride + i], one row after the other, for c < length.
template <std::size_t rows, std::size_t ranks>
void outer(const F32* a, std::size_t ahead, std::size_t columns, std::size_t length, const double* factors,
           std::size_t stride, double* sums) noexcept {
  double factor[rows][ranks];
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < ranks; ++j) factor[i][j] = factors[j * stride + i];
  }
  std::size_t c = 0;
  for (; c + kLanes <= length; c += kLanes) {
    for (std::size_t i = 0; i < rows; ++i) prefetch_second(a + i * columns + c + ahead);
#pragma GCC unroll 2
    for (std::size_t part = 0; part < kRegisters; ++part) {
      const std::size_t at = c + part * kWidth;
      Doubles sum[ranks];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < ranks; ++j) {
        __builtin_memcpy(&sum[j], sums + j * columns + at, sizeof sum[j]);
      }
#pragma GCC unroll 4
      for (std::size_t i = 0; i < rows; ++i) {
        const Doubles value = load_doubles(a + i * columns + at);
#pragma GCC unroll 4
        for (std::size_t j = 0; j < ranks; ++j) sum[j] += value * factor[i][j];
      }
#pragma GCC unroll 4
      for (std::size_t j = 0; j < ranks; ++j) {
        __builtin_memcpy(sums + j * columns + at, &sum[j], sizeof sum[j]);
      }
    }
  }
  for (; c < length; ++c) {
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < ranks; ++j) {
        sums[j * columns + c] += static_cast<double>(a[i * columns + c]) * factor[i][j];
      }
    }
  }
}

template <std::size_t rows, std::size_t ranks>
void dots_of(const Rows& a, bool adds, const F32* right, double* products, std::size_t stride) noexcept {
  if (adds) return dots<rows, ranks, true>(a, right, products, stride);
  dots<rows, ranks, false>(a, right, products, stride);
}

/// Both products of `rows` rows with `ranks` directions.
template <std::size_t ranks>
void band(const Rows& a, std::size_t rows, bool adds, const F32* right, double* products, std::size_t stride,
          double* sums) noexcept {
  std::size_t i = 0;
  const auto from = [&](std::size_t row) noexcept -> Rows {
    const std::size_t first = row * a.columns;
    return {a.x + first, a.residual != nullptr ? a.residual + first : nullptr, a.columns, a.length, a.ahead};
  };
  for (; i + kDotRows <= rows; i += kDotRows) {
    dots_of<kDotRows, ranks>(from(i), adds, right, products + i, stride);
  }
  for (; i < rows; ++i) dots_of<1, ranks>(from(i), adds, right, products + i, stride);
  const F32* summed = adds ? a.residual : a.x;
  for (std::size_t column = 0; column < a.length; column += kOuterTile) {
    const std::size_t length = a.length - column < kOuterTile ? a.length - column : kOuterTile;
    const F32* tile = summed + column;
    i = 0;
    for (; i + kOuterRows <= rows; i += kOuterRows) {
      outer<kOuterRows, ranks>(tile + i * a.columns, a.ahead, a.columns, length, products + i, stride,
                               sums + column);
    }
    for (; i < rows; ++i) {
      outer<1, ranks>(tile + i * a.columns, a.ahead, a.columns, length, products + i, stride, sums + column);
    }
  }
}

std::size_t count_bad(const F32* a, std::size_t n) noexcept {
  std::size_t bad = 0;
  for (std::size_t i = 0; i < n; ++i) bad += magnitude_bits(a[i]) >= kInfinityBits ? 1 : 0;
  return bad;
}

/// Fills the workspace: left = (A Q0)^T, right = (A^T A Q0)^T. Residual becomes a. Returns how many elements
/// of a are NaN or infinite.
std::size_t pass(const F32* x, F32* residual, const PowersgdShape& shape, const F32* right,
                 const PowersgdWorkspace& work) noexcept {
  const std::size_t rows = powersgd_rows(shape.n, shape.columns);
  const std::size_t columns = shape.columns;
  const std::size_t full = shape.n / columns;
  const std::size_t band_rows = kBand / columns > kDotRows ? kBand / columns / kDotRows * kDotRows : kDotRows;
  __builtin_memset(work.right, 0, shape.rank * columns * sizeof(double));
  std::size_t bad = 0;
  for (std::size_t row = 0, count = 0; row < rows; row += count) {
    const std::size_t first = row * columns;
    count = full - row < band_rows ? full - row : band_rows;
    if (row == full) count = 1;  // the ragged last row, by itself
    const std::size_t length = row == full ? shape.n - first : columns;
    Rows a{x + first, residual != nullptr ? residual + first : nullptr, columns, length, count * columns};
    for (std::size_t j = 0; j < shape.rank; j += kGroupRank) {
      const std::size_t ranks = shape.rank - j < kGroupRank ? shape.rank - j : kGroupRank;
      const bool adds = residual != nullptr && j == 0;
      if (residual != nullptr && j != 0) a.x = a.residual;
      const F32* q = right + j * columns;
      double* products = work.left + j * rows + row;
      double* sums = work.right + j * columns;
      switch (ranks) {
        case 1:
          band<1>(a, count, adds, q, products, rows, sums);
          break;
        case 2:
          band<2>(a, count, adds, q, products, rows, sums);
          break;
        case 3:
          band<3>(a, count, adds, q, products, rows, sums);
          break;
        default:
          band<4>(a, count, adds, q, products, rows, sums);
      }
    }
    // A row that holds a NaN or an infinity has no finite product with anything.
    const F32* summed = residual != nullptr ? residual + first : x + first;
    for (std::size_t i = 0; i < count; ++i) {
      const double product = work.left[row + i];
      if (!(product - product == 0.0)) bad += count_bad(summed + i * columns, length);
    }
  }
  return bad;
}

}  // namespace
}  // namespace pydec
