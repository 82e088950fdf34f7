#include "pydec/quant_distance.h"

#include "cpu/decode.h"

namespace pydec {
namespace {

constexpr std::size_t kPairedPiece = 256;  // elements of every message that are looked at together
using Level = std::int16_t;  // of an integer codec; GCC has an instruction for sums of their products

/// Levels of n elements; of narrow codes whole groups are written.
template <Codec codec>
void levels(const std::uint8_t* codes, std::size_t n, Level* out) noexcept {
  constexpr int kBits = CodecOf<codec>::kBits;
  if constexpr (kBits == 8) {
    for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<std::int8_t>(codes[i]);
  } else {
    constexpr std::size_t kGroup = group_of(codec);
    for (std::size_t i = 0; i < n; i += kGroup, codes += kLine) {
#pragma GCC unroll 4  // so that every shift is by a constant
      for (int p = 0; p < 8 / kBits; ++p) {
        Level* const line = out + i + static_cast<std::size_t>(p) * kLine;
        for (std::size_t j = 0; j < kLine; ++j) {
          const auto top = static_cast<Level>(codes[j] << (16 - kBits * (p + 1)));
          line[j] = static_cast<Level>(top >> (16 - kBits));
        }
      }
    }
  }
}

/// Sums over a block, whose at most 2^16 terms are at most 2^14.
struct Products {
  std::int32_t squares = 0;
  std::int32_t with_own = 0;
};

inline std::int32_t sum_of_squares(const Level* a, std::size_t n) noexcept {
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i] * a[i];
  return sum;
}

inline std::int32_t sum_of_products(const Level* a, const Level* b, std::size_t n) noexcept {
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

inline void add_products(const Level* a, const Level* b, std::size_t n, Products& to) noexcept {
  std::int32_t squares = 0;
  std::int32_t with_own = 0;
  for (std::size_t i = 0; i < n; ++i) {
    squares += b[i] * b[i];
    with_own += a[i] * b[i];
  }
  to.squares += squares;
  to.with_own += with_own;
}

/// sum (s a - t b)^2 of a block. s a - t b is t (a - b) + (s - t) a, so that nothing cancels where codes or
/// scales are equal, and the sums of the levels are exact.
inline double squared_distance(double s, double t, std::int32_t own, const Products& other) noexcept {
  const std::int64_t along = std::int64_t{own} - other.with_own;
  const std::int64_t apart = along + other.squares - other.with_own;
  const double off = s - t;
  const double squared = (t * t * static_cast<double>(apart) + 2.0 * t * off * static_cast<double>(along)) +
                         off * off * static_cast<double>(own);
  return squared < 0.0 ? 0.0 : squared;  // by rounding
}

/// At most kMessages messages, which take turns at a piece of the own one.
template <Codec codec>
void some_sqdists(const QuantMessage& own, const QuantMessage* messages, std::size_t m, std::size_t n,
                  std::size_t block, double* sums) noexcept {
  Level a[kDecodePiece];
  Level b[kDecodePiece];
  std::int32_t squares = 0;
  Products products[kMessages];
  for_pieces(n, block, [&](std::size_t index, std::size_t first, std::size_t count) {
    const std::size_t at = first / group_of(codec) * kLine;
    levels<codec>(own.codes + at, count, a);
    squares += sum_of_squares(a, count);
    for (std::size_t k = 0; k < m; ++k) {
      levels<codec>(messages[k].codes + at, count, b);
      add_products(a, b, count, products[k]);
    }
    const std::size_t end = first + count;
    if (end < n && end % block != 0) return;
    for (std::size_t k = 0; k < m; ++k) {
      sums[k] += squared_distance(own.scales[index], messages[k].scales[index], squares, products[k]);
      products[k] = {};
    }
    squares = 0;
  });
}

template <Codec codec>
void sqdists(const QuantMessage& own, const QuantMessage* messages, std::size_t m, std::size_t n,
             std::size_t block, double* sums) noexcept {
  for (std::size_t k = 0; k < m; k += kMessages) {
    some_sqdists<codec>(own, messages + k, m - k < kMessages ? m - k : kMessages, n, block, sums + k);
  }
}

/// Every message's levels are taken once for all its pairs.
template <Codec codec>
void pairs(const QuantMessage* messages, std::size_t m, std::size_t n, std::size_t block,
           double* sums) noexcept {
  Level levels_of[kMostPaired][kPairedPiece];
  std::int32_t squares[kMostPaired] = {};
  std::int32_t products[kMostPaired][kMostPaired] = {};
  for_pieces<kPairedPiece>(n, block, [&](std::size_t index, std::size_t first, std::size_t count) {
    const std::size_t at = first / group_of(codec) * kLine;
    for (std::size_t k = 0; k < m; ++k) {
      levels<codec>(messages[k].codes + at, count, levels_of[k]);
      squares[k] += sum_of_squares(levels_of[k], count);
      for (std::size_t l = 0; l < k; ++l) {
        products[l][k] += sum_of_products(levels_of[l], levels_of[k], count);
      }
    }
    const std::size_t end = first + count;
    if (end < n && end % block != 0) return;
    for (std::size_t k = 0; k < m; ++k) {
      for (std::size_t l = k + 1; l < m; ++l) {
        sums[k * m + l] += squared_distance(messages[k].scales[index], messages[l].scales[index], squares[k],
                                            {squares[l], products[k][l]});
        products[k][l] = 0;
      }
      squares[k] = 0;
    }
  });
}

}  // namespace

template <>
const QuantDistances& table<QuantDistances, Target::PYDEC_TARGET>() noexcept {
  static constexpr QuantDistances kernels{
      .sqdists = {sqdists<Codec::int8>, sqdists<Codec::int4>, sqdists<Codec::int2>},
      .pairs = {pairs<Codec::int8>, pairs<Codec::int4>, pairs<Codec::int2>}};
  return kernels;
}

}  // namespace pydec
