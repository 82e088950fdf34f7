// Entries at places that a 64-bit key alone decides, so that no index is ever sent.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// Of the ceil(n / chunk) chunks, one of each of k strata; the last chunk may be short.
struct RandkShape {
  std::size_t n;
  std::size_t chunk;  ///< elements that are chosen together, at least 1
  std::size_t k;      ///< strata, at most as many as chunks
  std::uint64_t key;
};

/// Some of the k strata; `values` of a kernel are those of the first of them on.
struct RandkStrata {
  std::size_t first;
  std::size_t count;
};

/// Elements that a digest is made of.
constexpr std::size_t kRandkDigest = std::size_t{1} << 16;

/// One message and its weight; the shape's n is that of the vector.
struct RandkMessage {
  const F32* values;
  RandkShape shape;
  float weight;
};

/// Where a message is in a sweep over the vector.
struct RandkCursor {
  static constexpr std::size_t kStrata = 64;
  std::size_t starts[kStrata];  ///< first elements of chunks
  std::size_t at;               ///< chunk that is next among them
  std::size_t count;
  std::size_t stratum;  ///< that is drawn next
  std::size_t done;     ///< elements of the next chunk that are behind
};

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; inputs
/// and outputs do not overlap; nothing is checked, thrown or allocated.
struct RandkKernels {
  /// With a = x (residual null) or a = x + residual, which residual becomes, and n <= kRandkDigest: a number
  /// made of `start` and all bits of a. Adds the number of elements of a that are NaN or infinite to `bad`.
  std::uint64_t (*digest_f32)(const F32* x, F32* residual, std::size_t n, std::uint64_t start,
                              std::size_t& bad) noexcept;
  /// The elements that the strata chose, in ascending order, times the size of their stratum if `scaled`.
  void (*gather_f32)(const F32* x, const RandkShape& shape, const RandkStrata& strata, bool scaled,
                     F32* values) noexcept;
  /// out[i] += weight * value at the places that the strata chose, rounding after the product and after the
  /// sum.
  void (*scatter_f32)(const F32* values, const RandkShape& shape, const RandkStrata& strata, float weight,
                      F32* out) noexcept;
  /// For k = 0..m-1 in order: out[i] += weight_k * value where message k chose i in first..last, rounding
  /// after the product and after the sum. One sweep over `out`; separate ranges may be worked on at the same
  /// time. There is one cursor for each message.
  void (*accumulate_f32)(const RandkMessage* messages, std::size_t m, std::size_t first, std::size_t last,
                         RandkCursor* cursors, F32* out) noexcept;
};

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 10: a bijection
/// whose outputs for successive inputs are as good as random.
PYDEC_ELEMENT std::uint64_t mixed_bits(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// What the digest of the elements index * kRandkDigest and following of n starts from.
PYDEC_ELEMENT std::uint64_t randk_start(std::uint64_t seed, std::size_t n, std::size_t index) {
  return mixed_bits(seed + (index + 1) * 0x9e3779b97f4a7c15u) ^ n;
}

/// The key made of one digest or more.
PYDEC_ELEMENT std::uint64_t randk_key(const std::uint64_t* digests, std::size_t count) {
  std::uint64_t key = digests[0];
  for (std::size_t i = 1; i < count; ++i) key = mixed_bits(key + digests[i]);
  return key;
}

/// Chunk that stratum `j` of `strata` chooses out of `chunks`. Strata are runs of chunks whose sizes differ
/// by at most 1, the longer ones first; a chunk's chance is 1 / size up to 2^-64 * size.
PYDEC_ELEMENT std::size_t randk_choice(std::size_t chunks, std::size_t strata, std::uint64_t key,
                                       std::size_t j, std::size_t& size) {
  const std::size_t least = chunks / strata;
  const std::size_t longer = chunks % strata;
  size = least + (j < longer ? 1 : 0);
  const std::size_t first = j * least + (j < longer ? j : longer);
  const std::uint64_t random = mixed_bits(key + (j + 1) * 0x9e3779b97f4a7c15u);
  return first + static_cast<std::size_t>((static_cast<unsigned __int128>(random) * size) >> 64);
}

PYDEC_ELEMENT std::size_t randk_chunks(const RandkShape& shape) {
  return shape.n / shape.chunk + (shape.n % shape.chunk != 0 ? 1 : 0);
}

/// Elements that are chosen: k chunks, but for what the last chunk lacks if it is among them.
PYDEC_ELEMENT std::size_t randk_count(const RandkShape& shape) {
  if (shape.k == 0) return 0;
  const std::size_t chunks = randk_chunks(shape);
  std::size_t size = 0;
  const std::size_t last = randk_choice(chunks, shape.k, shape.key, shape.k - 1, size);
  return shape.k * shape.chunk - (last == chunks - 1 ? chunks * shape.chunk - shape.n : 0);
}

}  // namespace pydec
