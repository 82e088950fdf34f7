#include "pydec/mix.h"

#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

void mix_f32(const py::sequence& x, const py::sequence& weights, py::handle out_object) {
  const std::size_t m = x.size();
  if (m == 0) throw py::value_error("mix needs at least one vector, got none");
  if (weights.size() != m) {
    throw py::value_error("mix needs one weight for each vector, got " + std::to_string(weights.size()) +
                          " weights for " + std::to_string(m) + " vectors");
  }
  const Array<float> out(out_object, "out");
  out.output();
  const py::tuple items = items_of(x);
  std::vector<const float*> inputs(m);
  std::vector<float> factors(m);
  for (std::size_t k = 0; k < m; ++k) {
    const Array<float> input(items[k], item_name("x", k));
    input.sized(out.size, "as out has");
    require_apart(input, out, true);
    inputs[k] = input.data;
    factors[k] = weight_of(py::object(weights[k]), item_name("weights", k));
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<MixKernels>().mix_f32(inputs.data(), factors.data(), m, out.data, out.size);
}

}  // namespace

void bind_mix(py::module_& m) {
  m.def("mix_f32", mix_f32, py::arg("x"), py::arg("weights"), py::arg("out"));
}

}  // namespace pydec::bindings
