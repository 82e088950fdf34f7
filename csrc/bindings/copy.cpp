#include "pydec/copy.h"

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

void stream_f32(py::handle x_object, py::handle out_object) {
  const Array<float> x(x_object, "x");
  const Array<float> out(out_object, "out");
  out.output().sized(x.size, "as x has");
  require_apart(x, out);
  py::gil_scoped_release nogil;  // touches no Python object
  active<CopyKernels>().stream_f32(x.data, out.data, x.size);
}

}  // namespace

void bind_copy(py::module_& m) {
  m.def("stream_f32", stream_f32, py::arg("x"), py::arg("out"));
}

}  // namespace pydec::bindings
