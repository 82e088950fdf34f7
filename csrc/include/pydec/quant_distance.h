// Distances between vectors that are quantised blockwise (pydec/quant.h), from their codes.
#pragma once

#include <cstddef>

#include "pydec/quant.h"
#include "pydec/reduce.h"

namespace pydec {

/// Codecs whose levels are integers come first.
constexpr int kIntegerCodecs = static_cast<int>(Codec::int2) + 1;
/// Elements of the largest block, so that sums of products of its levels are exact in 32 bits.
constexpr std::size_t kMostSummed = std::size_t{1} << 16;
/// Messages that `pairs` takes: pieces of all of them lie in a cache of the first or second level.
constexpr std::size_t kMostPaired = 64;

/// Elements that one call of `sqdists` takes: whole blocks, about a chunk.
constexpr std::size_t distance_chunk(std::size_t block) {
  return (kSumChunk > block ? kSumChunk / block : 1) * block;
}

/// The contract of pydec/quant.h; block is at most kMostSummed.
struct QuantDistances {
  /// Adds sum_i (scale * level[i] - scale_k * level_k[i])^2 to sums[k], k = 0..m-1, block after block. With s
  /// and t the scales of own and of message k, and P = sum (a - b)^2, Q = sum a (a - b) and R = sum a^2 of
  /// their levels, which are exact, a block adds max(0, ((t t) P + ((2 t) (s - t)) Q) + ((s - t) (s - t)) R),
  /// in double.
  void (*sqdists[kIntegerCodecs])(const QuantMessage& own, const QuantMessage* messages, std::size_t m,
                                  std::size_t n, std::size_t block, double* sums) noexcept;
  /// The same of every pair of m messages, at most kMostPaired: for k < l that of own = k and message l is
  /// added to sums[k * m + l].
  void (*pairs[kIntegerCodecs])(const QuantMessage* messages, std::size_t m, std::size_t n, std::size_t block,
                                double* sums) noexcept;
};

}  // namespace pydec
