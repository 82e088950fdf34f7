#include "pydec/reduce.h"

#include "bindings/arrays.h"

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

std::size_t count_nonfinite_f32(py::handle x_object) {
  const Array<float> x(x_object, "x");
  py::gil_scoped_release nogil;  // touches no Python object
  return active<ReduceKernels>().count_nonfinite_f32(x.data, x.size);
}

}  // namespace

void bind_reduce(py::module_& m) {
  m.def("sqnorm_f32", sqnorm_f32, py::arg("x"));
  m.def("sqdist_f32", sqdist_f32, py::arg("x"), py::arg("y"));
  m.def("count_nonfinite_f32", count_nonfinite_f32, py::arg("x"));
}

}  // namespace pydec::bindings
