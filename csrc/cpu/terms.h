// Weighted sums of any number of vectors, tile by tile.
#pragma once

#include <cstddef>

#include "cpu/loop.h"
#include "pydec/element.h"

namespace pydec {
namespace {

constexpr std::size_t kGroup = 4;  // vectors that are read side by side
template <class Real>
constexpr std::size_t kTile = 8192 / sizeof(Real);  // partial sums that stay in the first-level cache

/// out[i] = (continued ? sum[i] + : ) w[0] * x[0][i] + ... over M vectors, left to right.
template <class Real, std::size_t M, bool continued>
void add_terms(const Any<Real>* const* x, const Real* w, std::size_t first, std::size_t n, const Real* sum,
               Any<Real>* out) noexcept {
  const Any<Real>* in[M];
  Real weight[M];
  for (std::size_t k = 0; k < M; ++k) {
    in[k] = x[k] + first;
    weight[k] = w[k];
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    Real total = weight[0] * in[0][i];
    if constexpr (continued) total = sum[i] + total;
    if constexpr (M > 1) total = total + weight[1] * in[1][i];
    if constexpr (M > 2) total = total + weight[2] * in[2][i];
    if constexpr (M > 3) total = total + weight[3] * in[3][i];
    out[i] = total;
  }
}

template <class Real, bool continued>
void add_group(const Any<Real>* const* x, const Real* w, std::size_t m, std::size_t first, std::size_t n,
               const Real* sum, Any<Real>* out) noexcept {
  switch (m) {
    case 1:
      return add_terms<Real, 1, continued>(x, w, first, n, sum, out);
    case 2:
      return add_terms<Real, 2, continued>(x, w, first, n, sum, out);
    case 3:
      return add_terms<Real, 3, continued>(x, w, first, n, sum, out);
    default:
      return add_terms<Real, 4, continued>(x, w, first, n, sum, out);
  }
}

/// Elements first..first+n of the sum; `out` may be one of the inputs, because it is written last.
template <class Real>
void sum_tile(const Any<Real>* const* x, const Real* w, std::size_t m, std::size_t first, std::size_t n,
              Real* sum, Any<Real>* out) noexcept {
  if (m <= kGroup) return add_group<Real, false>(x, w, m, first, n, nullptr, out);
  add_terms<Real, kGroup, false>(x, w, first, n, nullptr, sum);
  std::size_t k = kGroup;
  for (; m - k > kGroup; k += kGroup) add_terms<Real, kGroup, true>(x + k, w + k, first, n, sum, sum);
  add_group<Real, true>(x + k, w + k, m - k, first, n, sum, out);
}

}  // namespace
}  // namespace pydec
