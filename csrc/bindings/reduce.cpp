#include "pydec/reduce.h"

#include <cmath>

#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

double sqnorm_f32(py::handle x_object) {
  const Array<float> x(x_object, "x");
  py::gil_scoped_release nogil;  // touches no Python object
  return active<ReduceKernels>().sqnorm_f32(x.data, x.size);
}

double sqdist_f32(py::handle x_object, py::handle y_object) {
  const Array<float> x(x_object, "x");
  const Array<float> y(y_object, "y");
  y.sized(x.size, "as x has");
  py::gil_scoped_release nogil;  // touches no Python object
  return active<ReduceKernels>().sqdist_f32(x.data, y.data, x.size);
}

void sqdists_f32(const py::sequence& x, py::handle y_object, py::handle out_object) {
  const Array<float> y(y_object, "y");
  const Array<double> out(out_object, "out");
  const Vectors vectors(x, "x", y.size, "as y has");
  out.output().sized(vectors.size(), "one for each vector");
  require_apart(y, out);
  vectors.apart(out);
  py::gil_scoped_release nogil;  // touches no Python object
  active<ReduceKernels>().sqdists_f32(vectors.data(), vectors.size(), y.data, y.size, out.data);
}

py::tuple checked_sqnorm_f32(py::handle x_object) {
  const Array<float> x(x_object, "x");
  double sum = 0.0;
  std::size_t bad = 0;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    sum = active<ReduceKernels>().sqnorm_f32(x.data, x.size);
    // Squares of finite floats do not overflow a double, nor do 2^64 of them: the sum is the test.
    if (!std::isfinite(sum)) bad = active<ReduceKernels>().count_nonfinite_f32(x.data, x.size);
  }
  return py::make_tuple(sum, bad);
}

std::size_t count_nonfinite_f32(py::handle x_object) {
  const Array<float> x(x_object, "x");
  py::gil_scoped_release nogil;  // touches no Python object
  return active<ReduceKernels>().count_nonfinite_f32(x.data, x.size);
}

}  // namespace

void bind_reduce(py::module_& m) {
  m.def("sqnorm_f32", sqnorm_f32, py::arg("x"));
  m.def("sqdist_f32", sqdist_f32, py::arg("x"), py::arg("y"));
  m.def("sqdists_f32", sqdists_f32, py::arg("x"), py::arg("y"), py::arg("out"));
  m.def("checked_sqnorm_f32", checked_sqnorm_f32, py::arg("x"));
  m.def("count_nonfinite_f32", count_nonfinite_f32, py::arg("x"));
}

}  // namespace pydec::bindings
