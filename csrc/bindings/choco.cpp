#include "pydec/choco.h"

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

std::size_t int8_step_f32(py::handle x_object, py::handle estimate_object, py::handle mixed_object,
                          const py::object& gradient_object, double gamma, double own_weight, double lr,
                          py::handle codes_object, py::handle scales_object, std::ptrdiff_t block) {
  if (block < 16 || block % 16 != 0) {
    throw py::value_error("block must be a positive multiple of 16 elements, got " + std::to_string(block));
  }
  const auto length = static_cast<std::size_t>(block);
  const Array<float> x(x_object, "x");
  const Array<float> estimate(estimate_object, "estimate");
  const Array<float> mixed(mixed_object, "mixed");
  const Array<std::int8_t> codes(codes_object, "codes");
  const Array<float> scales(scales_object, "scales");
  x.output();
  estimate.output().sized(x.size, "as x has");
  mixed.output().sized(x.size, "as x has");
  codes.output().sized(x.size, "one for each element of x");
  scales.output().sized(blocks_of(x.size, length), "one for each block");
  require_all_apart(codes, scales, x, estimate, mixed);
  const ChocoFactors factors{finite_weight(gamma, "gamma"), finite_weight(own_weight, "own_weight"),
                             finite_weight(lr, "lr")};
  ChocoState state{x.data, estimate.data, mixed.data, nullptr};
  if (!gradient_object.is_none()) {
    const Array<float> gradient(gradient_object, "gradient");
    gradient.sized(x.size, "as x has");
    require_all_apart(gradient, x, estimate, mixed, codes, scales);
    state.gradient = gradient.data;
  }
  py::gil_scoped_release nogil;  // touches no Python object
  return active<ChocoKernels>().int8_step_f32(state, factors, x.size, length, codes.data, scales.data);
}

}  // namespace

void bind_choco(py::module_& m) {
  m.def("choco_int8_step_f32", int8_step_f32, py::arg("x"), py::arg("estimate"), py::arg("mixed"),
        py::arg("gradient").none(true), py::arg("gamma"), py::arg("own_weight"), py::arg("lr"),
        py::arg("codes"), py::arg("scales"), py::arg("block"));
}

}  // namespace pydec::bindings
