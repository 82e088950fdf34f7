// What the bindings of DeMo, on the CPU and on a GPU, check about their options.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <string>

#include "pydec/demo.h"

namespace pydec::bindings {

namespace py = pybind11;

inline DemoValues values_named(const std::string& name) {
  if (name == "float32") return DemoValues::float32;
  if (name == "bf16") return DemoValues::bf16;
  if (name == "int8") return DemoValues::int8;
  throw py::value_error("values must be float32, bf16 or int8, got '" + name + "'");
}

inline unsigned log_of(std::ptrdiff_t side) {
  for (const unsigned log_side : {4u, 5u, 6u}) {
    if (side == std::ptrdiff_t{1} << log_side) return log_side;
  }
  throw py::value_error("side must be 16, 32 or 64, got " + std::to_string(side));
}

inline DemoShape checked_shape(std::size_t n, std::ptrdiff_t side, std::ptrdiff_t k,
                               const std::string& values) {
  const unsigned log_side = log_of(side);
  if (k < 1 || k > side * side) {
    throw py::value_error("k must be in 1.." + std::to_string(side * side) + ", got " + std::to_string(k));
  }
  return {n, log_side, static_cast<std::size_t>(k), values_named(values)};
}

inline std::size_t bytes_of(const DemoShape& shape) {
  return demo_tiles(shape.n, shape.log_side) * demo_record(shape.k, shape.log_side, shape.values);
}

}  // namespace pydec::bindings
