// Launch shapes.
#pragma once

#include <cstddef>

namespace pydec::cuda {

constexpr unsigned kThreads = 256;
// Enough to fill every current GPU several times; kernels stride over what is left.
constexpr std::size_t kMaxBlocks = 4096;

/// Thread blocks for `items` pieces of work of which one thread block takes `each` at a time.
inline unsigned grid_of(std::size_t items, std::size_t each) {
  const std::size_t blocks = items / each + (items % each != 0 ? 1 : 0);
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace pydec::cuda
