// Cosine transforms of 16, 32 and 64 points, on as many columns at once as a register has lanes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/lanes.h"
#include "pydec/element_dct.h"

namespace pydec {
namespace {

/// The next tile, which is asked for a few lines at a time while this one is worked on: more at once than the
/// core has buffers for would be dropped. It need not exist, so these are no pointers.
struct Ahead {
  std::uintptr_t x;
  std::uintptr_t residual;  ///< 0: nothing

  void step_x(std::size_t lines) noexcept { step(x, lines); }
  void step_residual(std::size_t lines) noexcept {
    if (residual != 0) step(residual, lines);
  }

 private:
  static void step(std::uintptr_t& from, std::size_t lines) noexcept {
    for (std::size_t i = 0; i < lines; ++i, from += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(from), 0, 2);
    }
  }
};

/// A share of a tile's lines for each of `steps` steps.
template <std::size_t side>
constexpr std::size_t share_of_lines(std::size_t share, std::size_t steps) {
  const std::size_t lines = side * side / 16 / share / steps;
  return lines > 0 ? lines : 1;
}

/// II along every column of a tile, the first coefficient times sqrt(1/2): the orthonormal one, but for a
/// factor sqrt(2 / side).
template <std::size_t side>
[[gnu::noinline]] void transform_columns(const float* tile, float* out, Ahead& ahead) noexcept {
  constexpr std::size_t kLines = share_of_lines<side>(8, side / kLanesWidth);
  for (std::size_t column = 0; column < side; column += kLanesWidth) {
    ahead.step_x(kLines);
    Lanes x[side];
#pragma GCC unroll 64
    for (std::size_t i = 0; i < side; ++i) x[i] = load_lanes(tile + i * side + column);
    Dct<side, Lanes>::second(x);
    ahead.step_residual(kLines);
    x[0] = x[0] * kRootHalf;
#pragma GCC unroll 64
    for (std::size_t i = 0; i < side; ++i) store_lanes(x[i], out + i * side + column);
  }
}

/// III along every column.
template <std::size_t side>
[[gnu::noinline]] void restore_columns(const float* spectrum, float* out, Ahead& ahead) noexcept {
  constexpr std::size_t kLines = share_of_lines<side>(4, side / kLanesWidth);
  for (std::size_t column = 0; column < side; column += kLanesWidth) {
    ahead.step_x(kLines);
    Lanes x[side];
#pragma GCC unroll 64
    for (std::size_t i = 0; i < side; ++i) x[i] = load_lanes(spectrum + i * side + column);
    Dct<side, Lanes>::third(x);
    ahead.step_residual(kLines);
#pragma GCC unroll 64
    for (std::size_t i = 0; i < side; ++i) store_lanes(x[i], out + i * side + column);
  }
}

/// Rows become columns.
template <std::size_t side>
void transpose(const float* tile, float* out, Ahead& ahead) noexcept {
  constexpr std::size_t kLines = share_of_lines<side>(4, side / 4);
  for (std::size_t row = 0; row < side; row += 4) {
    ahead.step_x(kLines);
    ahead.step_residual(kLines);
    for (std::size_t column = 0; column < side; column += 4) {
#if defined(__SSE4_2__)
      const float* from = tile + row * side + column;
      __m128 a = _mm_load_ps(from);
      __m128 b = _mm_load_ps(from + side);
      __m128 c = _mm_load_ps(from + 2 * side);
      __m128 d = _mm_load_ps(from + 3 * side);
      _MM_TRANSPOSE4_PS(a, b, c, d);
      float* to = out + column * side + row;
      _mm_store_ps(to, a);
      _mm_store_ps(to + side, b);
      _mm_store_ps(to + 2 * side, c);
      _mm_store_ps(to + 3 * side, d);
#else
      for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t j = 0; j < 4; ++j) {
          out[(column + j) * side + row + i] = tile[(row + i) * side + column + j];
        }
      }
#endif
    }
  }
}

/// basis[v][c] = cos((2c + 1) v pi / 2 side).
template <std::size_t side>
struct Basis {
  alignas(64) float row[side][side];
};

template <std::size_t side>
constexpr Basis<side> make_basis() {
  float once[4 * side] = {};
  for (std::size_t i = 0; i < 4 * side; ++i) once[i] = cosine(i, 2 * side);
  Basis<side> basis = {};
  for (std::size_t v = 0; v < side; ++v) {
    for (std::size_t c = 0; c < side; ++c) basis.row[v][c] = once[(2 * c + 1) * v % (4 * side)];
  }
  return basis;
}

template <std::size_t side>
constexpr Basis<side> kBasis = make_basis<side>();

/// The tile of k scaled coefficients: `places` are v * side + u; `work` is overwritten.
template <std::size_t side>
void restore_tile(const std::uint16_t* places, const float* values, std::size_t k, float* work, float* tile,
                  Ahead& ahead) noexcept {
  constexpr float kScale = 2.0f / static_cast<float>(side);
  __builtin_memset(work, 0, side * side * sizeof(float));
  for (std::size_t j = 0; j < k; ++j) {
    const std::size_t u = places[j] % side;
    const std::size_t v = places[j] / side;
    float y = values[j] * kScale;
    y = u == 0 ? y * kRootHalf : y;
    y = v == 0 ? y * kRootHalf : y;
    const float* basis = kBasis<side>.row[v];
    float* row = work + u * side;
#pragma GCC unroll 4
    for (std::size_t c = 0; c < side; c += kLanesWidth) {
      store_lanes(load_lanes(row + c) + y * load_lanes(basis + c), row + c);
    }
  }
  restore_columns<side>(work, tile, ahead);
}

}  // namespace
}  // namespace pydec
