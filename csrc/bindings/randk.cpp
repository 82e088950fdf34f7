#include "pydec/randk.h"

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

RandkShape checked_shape(std::size_t n, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key) {
  if (chunk < 1) throw py::value_error("chunk must be at least 1, got " + std::to_string(chunk));
  const RandkShape shape{n, static_cast<std::size_t>(chunk), static_cast<std::size_t>(k), key};
  if (k < 0 || shape.k > randk_chunks(shape)) {
    throw py::value_error("k must be in 0.." + std::to_string(randk_chunks(shape)) + ", got " +
                          std::to_string(k));
  }
  return shape;
}

py::tuple key_f32(py::handle x_object, py::handle residual_object, std::uint64_t seed) {
  const Array<float> x(x_object, "x");
  F32* residual = residual_of(residual_object, x);
  std::size_t bad = 0;
  std::uint64_t key = 0;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    key = active<RandkKernels>().key_f32(x.data, residual, x.size, seed, bad);
  }
  return py::make_tuple(key, bad);
}

std::size_t count(std::ptrdiff_t n, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key) {
  if (n < 0) throw py::value_error("n must not be negative, got " + std::to_string(n));
  return randk_count(checked_shape(static_cast<std::size_t>(n), chunk, k, key));
}

void gather_f32(py::handle x_object, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key, bool scaled,
                py::handle values_object) {
  const Array<float> x(x_object, "x");
  const Array<float> values(values_object, "values");
  const RandkShape shape = checked_shape(x.size, chunk, k, key);
  values.output().sized(randk_count(shape), "those that the key chooses");
  require_apart(x, values);
  py::gil_scoped_release nogil;  // touches no Python object
  active<RandkKernels>().gather_f32(x.data, shape, scaled, values.data);
}

void scatter_f32(py::handle values_object, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key,
                 double weight_value, py::handle out_object) {
  const Array<float> values(values_object, "values");
  const Array<float> out(out_object, "out");
  const RandkShape shape = checked_shape(out.output().size, chunk, k, key);
  values.sized(randk_count(shape), "those that the key chooses");
  require_apart(values, out);
  const float weight = finite_weight(weight_value, "weight");
  py::gil_scoped_release nogil;  // touches no Python object
  active<RandkKernels>().scatter_f32(values.data, shape, weight, out.data);
}

}  // namespace

void bind_randk(py::module_& m) {
  m.def("randk_key_f32", key_f32, py::arg("x"), py::arg("residual"), py::arg("seed"));
  m.def("randk_count", count, py::arg("n"), py::arg("chunk"), py::arg("k"), py::arg("key"));
  m.def("randk_gather_f32", gather_f32, py::arg("x"), py::arg("chunk"), py::arg("k"), py::arg("key"),
        py::arg("scaled"), py::arg("values"));
  m.def("randk_scatter_f32", scatter_f32, py::arg("values"), py::arg("chunk"), py::arg("k"), py::arg("key"),
        py::arg("weight"), py::arg("out"));
}

}  // namespace pydec::bindings
