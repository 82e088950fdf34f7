// What the bindings of PowerSGD, on the CPU and on a GPU, check about factors.
#pragma once

#include "bindings/arrays.h"
#include "pydec/powersgd.h"

namespace pydec::bindings {

/// Checks both factors of a matrix of n elements; returns their rank.
inline std::size_t checked_rank(std::size_t n, std::size_t columns, const Array<float>& left,
                                const Array<float>& right) {
  const std::size_t rank = right.size / columns;
  if (right.size % columns != 0 || rank < 1 || rank > kMaxRank) {
    throw py::value_error(right.name + " must have 1.." + std::to_string(kMaxRank) + " times columns=" +
                          std::to_string(columns) + " elements, got " + std::to_string(right.size));
  }
  left.sized(rank * powersgd_rows(n, columns), "one for each row and direction");
  return rank;
}

inline std::size_t checked_columns(std::ptrdiff_t columns) {
  if (columns < 1) throw py::value_error("columns must be at least 1, got " + std::to_string(columns));
  return static_cast<std::size_t>(columns);
}

}  // namespace pydec::bindings
