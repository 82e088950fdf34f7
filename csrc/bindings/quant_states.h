// Encoding and decoding of vectors of every state type. For float64 the kernels of float32 make and read the
// codes, and all that is done with the values besides is done in float64.
#pragma once

#include <utility>
#include <vector>

#include "bindings/quant_shares.h"
#include "bindings/states.h"
#include "pydec/mix.h"

namespace pydec::bindings {

/// Where a piece's codes go, and what random numbers they draw.
struct EncodePart {
  std::size_t n;
  std::size_t block;
  const Draw* draw;  ///< null: to nearest
  std::uint8_t* codes;
  F32* scales;
  bool stream;
};

/// Rows of room that DoubleCodec wants beside vectors of T.
template <class T>
constexpr std::size_t kCodecRows = std::is_same_v<T, double> ? 2 : 0;

/// Steps on pieces of float64, with room for the numbers of one.
class DoubleCodec {
 public:
  DoubleCodec(Codec codec, std::size_t block, double* const* rows)
      : codec_(static_cast<int>(codec)),
        block_(block),
        single_(reinterpret_cast<float*>(rows[0])),
        row_(rows[1]) {}

  /// A row of doubles, which `decode` overwrites.
  double* row() const { return row_; }

  /// out = w[0] * x[0] + ..., left to right; `out` may be one of the x.
  template <std::size_t m>
  void sum(const double* const (&x)[m], const double (&w)[m], double* out, std::size_t n) const {
    active<MixKernels>().mix_f64(x, w, m, out, n, false);
  }

  /// Codes of `a`, rounded to float32; returns the number of bad blocks.
  std::size_t encode(const double* a, const EncodePart& to) const {
    active<CastKernels>().narrow_f64(a, to.n, single_);
    return active<QuantEncoders>().encode_f32[codec_](single_, nullptr, to.n, block_, to.draw, to.codes,
                                                      to.scales, false);
  }

  /// Values of codes, into the row.
  const double* decode(const std::uint8_t* codes, const F32* scales, std::size_t n) const {
    decode_to(codes, scales, n, row_);
    return row_;
  }
  void decode_to(const std::uint8_t* codes, const F32* scales, std::size_t n, double* out) const {
    active<QuantDecoders>().decode_f32[codec_](codes, scales, n, block_, single_, false);
    active<CastKernels>().widen_f64(single_, n, out);
  }

  /// For the blocks that are not bad, out += w * the values that have just been encoded.
  void settle(const EncodePart& from, std::size_t bad, double weight, double* out) const {
    const double* const value = decode(from.codes, from.scales, from.n);
    if (bad == 0) return sum({out, value}, {1.0, weight}, out, from.n);
    for (std::size_t b = 0, at = 0; at < from.n; ++b, at += block_) {
      if (from.scales[b] != from.scales[b]) continue;
      sum({out + at, value + at}, {1.0, weight}, out + at, std::min(block_, from.n - at));
    }
  }

 private:
  int codec_;
  std::size_t block_;
  float* single_;
  double* row_;
};

/// Calls kernel(vectors, part) on pieces of vectors of n elements; returns the sum of the results. Without
/// the GIL.
template <class T, class Kernel>
std::size_t encode_pieces(std::vector<Part<T>> parts, std::size_t n, Codec codec, std::size_t block,
                          const Draw* draw, const Message& to, const Kernel& kernel) {
  std::size_t bytes = 1;
  for (const Part<T>& part : parts) {
    if (part.data != nullptr) bytes += sizeof(T) * (part.use == Use::update ? 2 : 1);
  }
  const bool stream = std::is_same_v<T, float> && to.codes.size >= kStreamBytes;
  const Shares shares(n, bytes, block_unit(block, n));
  Pieces<T> pieces(shares, std::move(parts), block, kCodecRows<T>);
  return shares.count([&](const Share& share) {
    std::size_t result = 0;
    pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
      const Draw from = draw != nullptr ? Draw{draw->key, draw->first + piece.first} : Draw{};
      const CodesAt at(to, codec, block, piece);
      result += kernel(
          v, EncodePart{piece.count, block, draw != nullptr ? &from : nullptr, at.codes, at.scales, stream});
    });
    return result;
  });
}

}  // namespace pydec::bindings
