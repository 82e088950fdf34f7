#include "pydec/copy.h"

#include "bindings/arrays.h"
#include "bindings/parallel.h"

namespace pydec::bindings {
namespace {

void stream_f32(py::handle x_object, py::handle out_object) {
  const Array<float> x(x_object, "x");
  const Array<float> out(out_object, "out");
  out.output().sized(x.size, "as x has");
  require_apart(x, out);
  const Shares shares(x.size, 2 * sizeof(float), kShareUnit, lead_of(out.data));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<CopyKernels>().stream_f32](const Share& share) {
    kernel(x.data + share.first, out.data + share.first, share.count);
  });
}

}  // namespace

void bind_copy(Module& m) {
  m.def("stream_f32", stream_f32, py::arg("x"), py::arg("out"));
}

}  // namespace pydec::bindings
