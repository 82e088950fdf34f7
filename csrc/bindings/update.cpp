#include "pydec/update.h"

#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Vectors, weights and the output of a mix, checked.
struct Mix {
  Mix(const py::sequence& x, const py::sequence& weights, py::handle out_object)
      : out(out_object, "out"),
        vectors(x, "x", out.output().size, "as out has"),
        factors(weights_of(weights, vectors.size())) {
    if (vectors.size() == 0) throw py::value_error("x must have at least one vector, got none");
    vectors.apart(out, true);
  }

  /// Another vector, apart from `out`, and from every x[k] if it is written.
  Array<float> also(py::handle object, const char* name, bool written) const {
    Array<float> array(object, name);
    array.sized(out.size, "as out has");
    require_apart(array, out);
    if (written) {
      array.output();
      vectors.apart(array);
    }
    return array;
  }

  Terms terms() const { return {vectors.data(), factors.data(), factors.size()}; }

  Array<float> out;
  Vectors vectors;
  std::vector<float> factors;
};

void push_sum_f32(const py::sequence& x, const py::sequence& weights, double divisor_option,
                  py::handle out_object, py::handle ratio_object) {
  const Mix mix(x, weights, out_object);
  const Array<float> ratio = mix.also(ratio_object, "ratio", true);
  const float divisor = finite_weight(divisor_option, "divisor");
  if (!(divisor > 0.0f)) {
    throw py::value_error("divisor must be a positive float32 number, got " + std::to_string(divisor_option));
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<UpdateKernels>().push_sum_f32(mix.terms(), divisor, mix.out.data, ratio.data, mix.out.size);
}

void tracking_f32(const py::sequence& x, const py::sequence& weights, py::handle gradient_object,
                  py::handle previous_object, py::handle out_object) {
  const Mix mix(x, weights, out_object);
  const Array<float> gradient = mix.also(gradient_object, "gradient", false);
  const Array<float> previous = mix.also(previous_object, "previous", true);
  require_apart(gradient, previous);
  py::gil_scoped_release nogil;  // touches no Python object
  active<UpdateKernels>().tracking_f32(mix.terms(), gradient.data, previous.data, mix.out.data, mix.out.size);
}

void momentum_f32(const py::sequence& x, const py::sequence& weights, py::handle gradient_object,
                  double momentum_option, double rate_option, py::handle velocity_object,
                  py::handle out_object) {
  const Mix mix(x, weights, out_object);
  const Array<float> gradient = mix.also(gradient_object, "gradient", false);
  const Array<float> velocity = mix.also(velocity_object, "velocity", true);
  require_apart(gradient, velocity);
  const float momentum = finite_weight(momentum_option, "momentum");
  const float rate = finite_weight(rate_option, "lr");
  py::gil_scoped_release nogil;  // touches no Python object
  active<UpdateKernels>().momentum_f32(mix.terms(), gradient.data, momentum, rate, velocity.data,
                                       mix.out.data, mix.out.size);
}

}  // namespace

void bind_update(py::module_& m) {
  m.def("push_sum_f32", push_sum_f32, py::arg("x"), py::arg("weights"), py::arg("divisor"), py::arg("out"),
        py::arg("ratio"));
  m.def("tracking_f32", tracking_f32, py::arg("x"), py::arg("weights"), py::arg("gradient"),
        py::arg("previous"), py::arg("out"));
  m.def("momentum_f32", momentum_f32, py::arg("x"), py::arg("weights"), py::arg("gradient"),
        py::arg("momentum"), py::arg("lr"), py::arg("velocity"), py::arg("out"));
}

}  // namespace pydec::bindings
