// Which outputs kernels write past the caches.
#pragma once

#include <cstddef>

namespace pydec {

/// Outputs of this size and more are written past the caches, which saves reading their lines first:
/// measured, smaller ones are better kept. Asked about the whole output, not about the part that a thread
/// writes.
constexpr std::size_t kStreamBytes = std::size_t{16} << 20;

/// Whether an output of n elements is, of float32 unless stated.
template <class T = float>
constexpr bool streams(std::size_t n) {
  return n * sizeof(T) >= kStreamBytes;
}

}  // namespace pydec
