// Blockwise quantisation to 8, 4, 2 and 1 bits: one float32 scale for every `block` elements, and codes.
//
// Codes of 8 bits are bytes in order. Narrower ones lie in groups of 16 bytes: with P = 8 / bits codes in a
// byte, byte j of a group holds the codes of its elements j, j + 16, ..., j + 16 (P - 1), from the low bits
// up. The last group is whole; codes past the last element are 0. A block is a whole number of groups.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/element_quant.h"
#include "pydec/target.h"

namespace pydec {

/// Bytes of a group of codes; also the number of elements that vector code wants side by side.
constexpr std::size_t kCodeLanes = 16;

PYDEC_ELEMENT constexpr int width_of(Codec codec) {
  constexpr int kBits[kCodecs] = {8, 4, 2, 1, 8, 8};
  return kBits[static_cast<int>(codec)];
}

/// Elements of a group.
PYDEC_ELEMENT constexpr std::size_t group_of(Codec codec) {
  return kCodeLanes * 8 / static_cast<std::size_t>(width_of(codec));
}

/// Bytes of the codes of n elements.
PYDEC_ELEMENT constexpr std::size_t code_bytes(Codec codec, std::size_t n) {
  if (width_of(codec) == 8) return n;
  const std::size_t group = group_of(codec);
  return (n / group + (n % group != 0 ? 1 : 0)) * kCodeLanes;
}

/// An entry of a table for each codec.
#define PYDEC_EACH_CODEC(f) \
  {f<Codec::int8>, f<Codec::int4>, f<Codec::int2>, f<Codec::sign>, f<Codec::e4m3>, f<Codec::e5m2>}

/// One encoded vector and its weight.
struct QuantMessage {
  const std::uint8_t* codes;
  const F32* scales;
  float weight;
};

/// What check found; 0 is a message that an encoder can have made.
enum Fault : unsigned {
  kBadScale = 1,    ///< negative, NaN, infinite, or so large that a level decodes to infinity
  kBadCode = 2,     ///< a code that stands for nothing: the lowest integer, a NaN or an infinity of fp8
  kBadPadding = 4,  ///< a code past the last element that is not 0
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs and
/// outputs do not overlap; block is a positive multiple of the codec's group; nothing is checked, thrown or
/// allocated. A vector of n elements has ceil(n / block) scales and code_bytes codes; the last block may be
/// short.
struct QuantEncoders {
  /// With a = x (residual null) or a = x + residual: the scale of a block is max|a| / top, or for `sign`
  /// mean|a|; the code is that of a * (1 / scale), rounded to nearest even, or for the integers with a draw
  /// rounded up with the probability of its fraction, to 2^-15. A scale of 0 has codes 0, but `sign` keeps
  /// the signs. A residual is overwritten by a - scale * level. A block with a NaN or an infinity, or whose
  /// scale would decode to infinity, gets the scale NaN, codes 0 and the residual a. Returns the number of
  /// such blocks.
  /// `stream`: the codes are written past the caches.
  std::size_t (*encode_f32[kCodecs])(const F32* x, F32* residual, std::size_t n, std::size_t block,
                                     const Draw* draw, std::uint8_t* codes, F32* scales,
                                     bool stream) noexcept;
  /// The same of a = x - y, rounded once, with no residual.
  std::size_t (*encode_difference_f32[kCodecs])(const F32* x, const F32* y, std::size_t n, std::size_t block,
                                                const Draw* draw, std::uint8_t* codes, F32* scales,
                                                bool stream) noexcept;
};

/// The same contract.
struct QuantDecoders {
  /// out[i] = scales[i / block] * level[i]. `stream`: out is written past the caches.
  void (*decode_f32[kCodecs])(const std::uint8_t* codes, const F32* scales, std::size_t n, std::size_t block,
                              F32* out, bool stream) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * (scale_k * level_k[i]), rounding after every product
  /// and every addition. One pass over `out`.
  void (*accumulate_f32[kCodecs])(const QuantMessage* messages, std::size_t m, std::size_t n,
                                  std::size_t block, F32* out) noexcept;
  /// sum_i (scale * level[i] - x[i])^2 of every chunk of kSumChunk elements: what, added in order, has the
  /// bits of the squared distance (pydec/reduce.h) of the decoded vector.
  void (*sqdist_f32[kCodecs])(const std::uint8_t* codes, const F32* scales, const F32* x, std::size_t n,
                              std::size_t block, double* sums) noexcept;
  /// The faults of a message.
  unsigned (*check[kCodecs])(const std::uint8_t* codes, const F32* scales, std::size_t n,
                             std::size_t block) noexcept;
};

}  // namespace pydec
