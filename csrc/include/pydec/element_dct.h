// Cosine transforms of a power of two of points, on a float or on a register of them: the same operations in
// the same order on the CPU and on a GPU.
//
// Unscaled: II[k] = sum x[i] cos((2i + 1) k pi / 2n), III is its transpose, IV[k] = sum x[i] cos((2i + 1) (2k
// + 1) pi / 4n). II of n points is II and IV of n / 2 points, of sums and differences of opposite elements.
// IV of n points is a rotation of opposite elements and two II of n / 2 points. Nothing is multiplied by more
// than 1, so rounding errors do not grow, unlike where one divides by cosines. Source: Wang, "Fast algorithms
// for the discrete W transform and for the discrete Fourier transform", IEEE Trans. ASSP 32 (1984), and
// Plonka, Tasche, "Fast and numerically stable algorithms for discrete cosine transforms", Linear Algebra
// Appl. 394 (2005).
#pragma once

#include <cstddef>

#if defined(__CUDACC__)
#define PYDEC_DCT __device__ __forceinline__ static
#define PYDEC_DCT_UNROLL _Pragma("unroll")
#else
#define PYDEC_DCT [[gnu::always_inline]] static inline
#define PYDEC_DCT_UNROLL _Pragma("GCC unroll 32")
#endif

namespace pydec {
namespace {

constexpr double kPi = 3.141592653589793238462643383279502884;

/// Both by Taylor's series, for 0 <= x <= pi / 4.
constexpr double series(double x, int first) {
  double term = first == 0 ? 1.0 : x;
  double sum = term;
  for (int i = first + 2; i < 26; i += 2) {
    term *= -x * x / (static_cast<double>(i) * static_cast<double>(i - 1));
    sum += term;
  }
  return sum;
}

/// cos(pi * i / n), n even.
constexpr float cosine(std::size_t i, std::size_t n) {
  i %= 2 * n;
  if (i > n) i = 2 * n - i;
  const bool negative = 2 * i > n;
  if (negative) i = n - i;
  const double value = 4 * i <= n
                           ? series(kPi * static_cast<double>(i) / static_cast<double>(n), 0)
                           : series(kPi * static_cast<double>(n - 2 * i) / static_cast<double>(2 * n), 1);
  return static_cast<float>(negative ? -value : value);
}

constexpr float kRootHalf = cosine(1, 4);

template <std::size_t n>
struct Angles {
  float cos[n / 2];
  float sin[n / 2];
};

/// Angles (2i + 1) pi / 4n.
template <std::size_t n>
constexpr Angles<n> angles() {
  Angles<n> result = {};
  for (std::size_t i = 0; i < n / 2; ++i) {
    result.cos[i] = cosine(2 * i + 1, 4 * n);
    result.sin[i] = cosine(2 * n - 2 * i - 1, 4 * n);
  }
  return result;
}

/// The transforms of x[0..n) in place; V is a float or a register of floats.
template <std::size_t n, class V>
struct Dct {
  static constexpr std::size_t kHalf = n / 2;

  PYDEC_DCT void second(V* x) noexcept {
    V sum[kHalf];
    V difference[kHalf];
    PYDEC_DCT_UNROLL
    for (std::size_t i = 0; i < kHalf; ++i) {
      sum[i] = x[i] + x[n - 1 - i];
      difference[i] = x[i] - x[n - 1 - i];
    }
    Dct<kHalf, V>::second(sum);
    Dct<kHalf, V>::fourth(difference);
    PYDEC_DCT_UNROLL
    for (std::size_t i = 0; i < kHalf; ++i) {
      x[2 * i] = sum[i];
      x[2 * i + 1] = difference[i];
    }
  }

  PYDEC_DCT void third(V* x) noexcept {
    V even[kHalf];
    V odd[kHalf];
    PYDEC_DCT_UNROLL
    for (std::size_t i = 0; i < kHalf; ++i) {
      even[i] = x[2 * i];
      odd[i] = x[2 * i + 1];
    }
    Dct<kHalf, V>::third(even);
    Dct<kHalf, V>::fourth(odd);
    PYDEC_DCT_UNROLL
    for (std::size_t i = 0; i < kHalf; ++i) {
      x[i] = even[i] + odd[i];
      x[n - 1 - i] = even[i] - odd[i];
    }
  }

  /// Its own transpose.
  PYDEC_DCT void fourth(V* x) noexcept {
    constexpr Angles<n> kAngles = angles<n>();
    V cosines[kHalf];
    V sines[kHalf];  // every second one negative, which makes a II of the sine transform
    PYDEC_DCT_UNROLL
    for (std::size_t i = 0; i < kHalf; ++i) {
      const V a = x[i];
      const V b = x[n - 1 - i];
      cosines[i] = a * kAngles.cos[i] + b * kAngles.sin[i];
      sines[i] =
          i % 2 == 0 ? b * kAngles.cos[i] - a * kAngles.sin[i] : a * kAngles.sin[i] - b * kAngles.cos[i];
    }
    Dct<kHalf, V>::second(cosines);
    Dct<kHalf, V>::second(sines);
    x[0] = cosines[0];
    PYDEC_DCT_UNROLL
    for (std::size_t i = 1; i < kHalf; ++i) {
      x[2 * i - 1] = cosines[i] - sines[kHalf - i];
      x[2 * i] = cosines[i] + sines[kHalf - i];
    }
    x[n - 1] = -sines[0];
  }
};

template <class V>
struct Dct<1, V> {
  PYDEC_DCT void second(V*) noexcept {}
  PYDEC_DCT void third(V*) noexcept {}
  PYDEC_DCT void fourth(V* x) noexcept { x[0] = x[0] * kRootHalf; }
};

}  // namespace
}  // namespace pydec
