// What the bindings of top-k with 8-bit values, on the CPU and on a GPU, check about their options.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

namespace pydec::bindings {

namespace py = pybind11;

inline std::size_t checked_block(std::ptrdiff_t block) {
  if (block < 16 || block % 16 != 0) {
    throw py::value_error("block must be a positive multiple of 16, got " + std::to_string(block));
  }
  return static_cast<std::size_t>(block);
}

inline std::size_t checked_count(std::ptrdiff_t k, std::size_t n) {
  if (n > std::size_t{std::numeric_limits<std::uint32_t>::max()}) {
    throw py::value_error("a vector of " + std::to_string(n) +
                          " elements is longer than the 4294967295 that uint32 indices reach; split it");
  }
  if (k < 0 || static_cast<std::size_t>(k) > n) {
    throw py::value_error("k must be in 0.." + std::to_string(n) + ", got " + std::to_string(k));
  }
  return static_cast<std::size_t>(k);
}

}  // namespace pydec::bindings
