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
constexpr std::size_t kRegisters = kLanes / kWidth;

double sum_of_lanes(const Doubles (&part)[kRegisters]) noexcept {
  double lane[kLanes];
  __builtin_memcpy(lane, part, sizeof lane);
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

/// Differences from the centre, zeros from `count` on to the next multiple of kLanes.
void difference(const F32* x, const F32* c, std::size_t count, double* out) noexcept {
  if (c != nullptr) {
    for (std::size_t j = 0; j < count; ++j) out[j] = static_cast<double>(x[j]) - static_cast<double>(c[j]);
  } else {
    for (std::size_t j = 0; j < count; ++j) out[j] = x[j];
  }
  for (std::size_t j = count; j % kLanes != 0; ++j) out[j] = 0.0;
}

/// The four products of rows a and b with rows p and q.
void multiply(const double* a, const double* b, const double* p, const double* q, std::size_t count,
              double (&product)[4]) noexcept {
  Doubles ap[kRegisters] = {};
  Doubles aq[kRegisters] = {};
  Doubles bp[kRegisters] = {};
  Doubles bq[kRegisters] = {};
  for (std::size_t j = 0; j < count; j += kLanes) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      Doubles va;
      Doubles vb;
      Doubles vp;
      Doubles vq;
      __builtin_memcpy(&va, a + j + r * kWidth, sizeof va);
      __builtin_memcpy(&vb, b + j + r * kWidth, sizeof vb);
      __builtin_memcpy(&vp, p + j + r * kWidth, sizeof vp);
      __builtin_memcpy(&vq, q + j + r * kWidth, sizeof vq);
      ap[r] += va * vp;
      aq[r] += va * vq;
      bp[r] += vb * vp;
      bq[r] += vb * vq;
    }
  }
  product[0] = sum_of_lanes(ap);
  product[1] = sum_of_lanes(aq);
  product[2] = sum_of_lanes(bp);
  product[3] = sum_of_lanes(bq);
}

void gram_f32(const F32* const* x, std::size_t n, const F32* c, std::size_t d, double* gram,
              double* work) noexcept {
  for (std::size_t k = 0; k < n * n; ++k) gram[k] = 0.0;
  for (std::size_t first = 0; first < d; first += kGramTile) {
    const std::size_t count = d - first < kGramTile ? d - first : kGramTile;
    for (std::size_t k = 0; k < n; ++k) {
      difference(x[k] + first, c != nullptr ? c + first : nullptr, count, work + k * kGramTile);
    }
    for (std::size_t i = 0; i < n; i += 2) {
      const std::size_t i1 = i + 1 < n ? i + 1 : i;  // a last row without a partner is its own
      for (std::size_t j = i; j < n; j += 2) {
        const std::size_t j1 = j + 1 < n ? j + 1 : j;
        double product[4];
        multiply(work + i * kGramTile, work + i1 * kGramTile, work + j * kGramTile, work + j1 * kGramTile,
                 count, product);
        gram[i * n + j] += product[0];
        if (j1 != j) gram[i * n + j1] += product[1];
        if (i1 != i && j != i) gram[i1 * n + j] += product[2];
        if (i1 != i && j1 != j) gram[i1 * n + j1] += product[3];
      }
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < i; ++j) gram[i * n + j] = gram[j * n + i];
  }
}

/// out[i] = sum[i] + factor * (x - y) over M vectors, left to right.
template <std::size_t M>
void add_group(const F32* const* x, const float* factor, std::size_t first, std::size_t n, const F32* y,
               const F32* sum, F32* out) noexcept {
  const F32* in[M];
  float w[M];
  for (std::size_t k = 0; k < M; ++k) {
    in[k] = x[k] + first;
    w[k] = factor[k];
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    float total = sum[i] + w[0] * (in[0][i] - y[i]);
    if constexpr (M > 1) total = total + w[1] * (in[1][i] - y[i]);
    if constexpr (M > 2) total = total + w[2] * (in[2][i] - y[i]);
    if constexpr (M > 3) total = total + w[3] * (in[3][i] - y[i]);
    out[i] = total;
  }
}

void add_some(const F32* const* x, const float* factor, std::size_t m, std::size_t first, std::size_t n,
              const F32* y, const F32* sum, F32* out) noexcept {
  switch (m) {
    case 1:
      return add_group<1>(x, factor, first, n, y, sum, out);
    case 2:
      return add_group<2>(x, factor, first, n, y, sum, out);
    case 3:
      return add_group<3>(x, factor, first, n, y, sum, out);
    default:
      return add_group<kGroup>(x, factor, first, n, y, sum, out);
  }
}

void add_differences_f32(const F32* const* x, const float* factor, std::size_t m, const F32* y, F32* out,
                         std::size_t d) noexcept {
  if (m == 0) return;
  // `out` may be an input, so partial sums of a piece wait here until all its inputs are read.
  float sum[kPiece];
  for (std::size_t first = 0; first < d; first += kPiece) {
    const std::size_t n = d - first < kPiece ? d - first : kPiece;
    const F32* from = out + first;
    std::size_t k = 0;
    for (; m - k > kGroup; k += kGroup, from = sum) {
      add_group<kGroup>(x + k, factor + k, first, n, y + first, from, sum);
    }
    add_some(x + k, factor + k, m - k, first, n, y + first, from, out + first);
  }
}

}  // namespace

template <>
const DistanceKernels& table<DistanceKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr DistanceKernels kernels{.gram_f32 = gram_f32, .add_differences_f32 = add_differences_f32};
  return kernels;
}

}  // namespace pydec
