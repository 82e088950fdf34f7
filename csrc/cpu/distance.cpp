#include "pydec/distance.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

constexpr std::size_t kLanes = 8;     // of a sum, whatever the register width
constexpr std::size_t kGroup = 4;     // vectors that are read side by side
constexpr std::size_t kPiece = 2048;  // 8 KiB of partial sums stay in the first-level cache

#if defined(__AVX512F__)
constexpr std::size_t kWidth = 8;
#elif defined(__AVX__)
constexpr std::size_t kWidth = 4;
#else
constexpr std::size_t kWidth = 2;
#endif
using Doubles = double __attribute__((vector_size(kWidth * sizeof(double))));

/// Pairwise: lanes j and j + 4, then j and j + 2, then the two that are left.
inline double sum_of_lanes(const double (&lane)[kLanes]) noexcept {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/// Differences from the centre, zeros from `count` on to the next multiple of kLanes.
template <class Real>
void difference(const Any<Real>* x, const Any<Real>* c, std::size_t count, double* out) noexcept {
  if (c != nullptr) {
    for (std::size_t j = 0; j < count; ++j) out[j] = static_cast<double>(x[j]) - static_cast<double>(c[j]);
  } else {
    for (std::size_t j = 0; j < count; ++j) out[j] = x[j];
  }
  for (std::size_t j = count; j % kLanes != 0; ++j) out[j] = 0.0;
}

inline Doubles load(const double* from) noexcept {
  Doubles a;
  __builtin_memcpy(&a, from, sizeof a);
  return a;
}

// Products that are summed side by side: as many as hide the latency of an addition and fit in 16 registers.
constexpr std::size_t kRows = 2;
constexpr std::size_t kColumns = 4;

/// lane[r][c][...] = the lanes of <row r, column c>, register by register of the lanes.
void multiply(const double* const (&row)[kRows], const double* const (&column)[kColumns], std::size_t count,
              double (&lane)[kRows][kColumns][kLanes]) noexcept {
  const double* const a = row[0];
  const double* const b = row[1];
  const double* const p = column[0];
  const double* const q = column[1];
  const double* const u = column[2];
  const double* const v = column[3];
  for (std::size_t from = 0; from < kLanes; from += kWidth) {
    Doubles ap{}, aq{}, au{}, av{}, bp{}, bq{}, bu{}, bv{};
    for (std::size_t j = from; j < count; j += kLanes) {
      const Doubles left = load(a + j);
      const Doubles right = load(b + j);
      Doubles other = load(p + j);
      ap += left * other;
      bp += right * other;
      other = load(q + j);
      aq += left * other;
      bq += right * other;
      other = load(u + j);
      au += left * other;
      bu += right * other;
      other = load(v + j);
      av += left * other;
      bv += right * other;
    }
    const Doubles sums[kRows][kColumns] = {{ap, aq, au, av}, {bp, bq, bu, bv}};
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t c = 0; c < kColumns; ++c) __builtin_memcpy(lane[r][c] + from, &sums[r][c], sizeof ap);
    }
  }
}

/// Adds a tile's products to the part of the matrix on and above the diagonal.
void add_tile(const double* work, std::size_t n, std::size_t count, double* gram) noexcept {
  for (std::size_t i = 0; i < n; i += kRows) {
    for (std::size_t j = i; j < n; j += kColumns) {
      const double* row[kRows];
      const double* column[kColumns];
      // Rows and columns beyond the last repeat it; their products are not used.
      for (std::size_t r = 0; r < kRows; ++r) row[r] = work + (i + r < n ? i + r : n - 1) * kGramTile;
      for (std::size_t c = 0; c < kColumns; ++c) column[c] = work + (j + c < n ? j + c : n - 1) * kGramTile;
      double lane[kRows][kColumns][kLanes];
      multiply(row, column, count, lane);
      for (std::size_t r = 0; r < kRows && i + r < n; ++r) {
        for (std::size_t c = 0; c < kColumns && j + c < n; ++c) {
          if (i + r <= j + c) gram[(i + r) * n + j + c] += sum_of_lanes(lane[r][c]);
        }
      }
    }
  }
}

template <class Real>
void gram(const Any<Real>* const* x, std::size_t n, const Any<Real>* c, std::size_t d, double* gram,
          double* work) noexcept {
  for (std::size_t first = 0; first < d; first += kGramTile) {
    const std::size_t count = d - first < kGramTile ? d - first : kGramTile;
    for (std::size_t k = 0; k < n; ++k) {
      difference<Real>(x[k] + first, c != nullptr ? c + first : nullptr, count, work + k * kGramTile);
    }
    add_tile(work, n, count, gram);
  }
}

/// out[i] = sum[i] + factor * (x - y) over M vectors, left to right.
template <class Real, std::size_t M>
void add_group(const Any<Real>* const* x, const Real* factor, std::size_t first, std::size_t n,
               const Any<Real>* y, const Any<Real>* sum, Any<Real>* out) noexcept {
  const Any<Real>* in[M];
  Real w[M];
  for (std::size_t k = 0; k < M; ++k) {
    in[k] = x[k] + first;
    w[k] = factor[k];
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    Real total = sum[i] + w[0] * (in[0][i] - y[i]);
    if constexpr (M > 1) total = total + w[1] * (in[1][i] - y[i]);
    if constexpr (M > 2) total = total + w[2] * (in[2][i] - y[i]);
    if constexpr (M > 3) total = total + w[3] * (in[3][i] - y[i]);
    out[i] = total;
  }
}

template <class Real>
void add_some(const Any<Real>* const* x, const Real* factor, std::size_t m, std::size_t first, std::size_t n,
              const Any<Real>* y, const Any<Real>* sum, Any<Real>* out) noexcept {
  switch (m) {
    case 1:
      return add_group<Real, 1>(x, factor, first, n, y, sum, out);
    case 2:
      return add_group<Real, 2>(x, factor, first, n, y, sum, out);
    case 3:
      return add_group<Real, 3>(x, factor, first, n, y, sum, out);
    default:
      return add_group<Real, kGroup>(x, factor, first, n, y, sum, out);
  }
}

template <class Real>
void add_differences(const Any<Real>* const* x, const Real* factor, std::size_t m, const Any<Real>* y,
                     Any<Real>* out, std::size_t d) noexcept {
  if (m == 0) return;
  // `out` may be an input, so partial sums of a piece wait here until all its inputs are read.
  Real sum[kPiece];
  for (std::size_t first = 0; first < d; first += kPiece) {
    const std::size_t n = d - first < kPiece ? d - first : kPiece;
    const Any<Real>* from = out + first;
    std::size_t k = 0;
    for (; m - k > kGroup; k += kGroup, from = sum) {
      add_group<Real, kGroup>(x + k, factor + k, first, n, y + first, from, sum);
    }
    add_some<Real>(x + k, factor + k, m - k, first, n, y + first, from, out + first);
  }
}

}  // namespace

template <>
const DistanceKernels& table<DistanceKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr DistanceKernels kernels{.gram_f32 = gram<float>,
                                           .gram_f64 = gram<double>,
                                           .add_differences_f32 = add_differences<float>,
                                           .add_differences_f64 = add_differences<double>};
  return kernels;
}

}  // namespace pydec
