// Where the codes of a blockwise quantiser lie (pydec/quant.h), as threads see them: a word of four bytes
// holds the codes of four neighbouring elements in each of the group's layers, 16 elements apart.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/simt.h"
#include "pydec/quant.h"

namespace pydec::cuda {

/// An integer to divide by: a shift where it is a power of two, because 64-bit divisions are slow.
struct Divisor {
  std::size_t value;
  unsigned shift;
  bool power;
};

inline Divisor divisor_of(std::size_t value) {
  Divisor divisor{value, 0, (value & (value - 1)) == 0};
  while (divisor.power && (std::size_t{1} << divisor.shift) < value) ++divisor.shift;
  return divisor;
}

/// Words of codes of n elements: 4 for every group of 16 bytes, but of codes of 8 bits only what n needs.
constexpr std::size_t code_words(Codec codec, std::size_t n) {
  return width_of(codec) == 8 ? n / 4 + (n % 4 != 0 ? 1 : 0) : code_bytes(codec, n) / 4;
}

namespace {

__device__ inline std::size_t divide(std::size_t a, const Divisor& by) {
  return by.power ? a >> by.shift : a / by.value;
}

/// Layers of a group of codes of `bits` bits, each of 16 elements.
constexpr unsigned layers_of(int bits) {
  return 8u / static_cast<unsigned>(bits);
}

/// The codes of layer `layer` in a word, sign-extended to bytes, as CodecOf<>::level takes them.
template <int bits>
__device__ inline std::uint8_t code_in(std::uint32_t word, unsigned layer, unsigned j) {
  const std::uint32_t code = word >> (8 * j + static_cast<unsigned>(bits) * layer);
  if constexpr (bits == 8) {
    return static_cast<std::uint8_t>(code);
  } else {
    constexpr std::uint32_t kMask = (1u << bits) - 1u;
    constexpr std::uint32_t kSign = bits == 1 ? 0u : 1u << (bits - 1);
    return static_cast<std::uint8_t>(((code & kMask) ^ kSign) - kSign);
  }
}

}  // namespace
}  // namespace pydec::cuda
