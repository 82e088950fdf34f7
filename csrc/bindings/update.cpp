#include "pydec/update.h"

#include "bindings/parallel.h"
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

  /// Calls kernel(terms, first element, elements) on shares; `others` more vectors are read or written.
  template <class Kernel>
  void run(std::size_t others, const Kernel& kernel) const {
    const std::size_t m = factors.size();
    const Shares shares(out.size, sizeof(float) * (m + 1 + others), kShareUnit, lead_of(out.data));
    ShiftedVectors<const float> from(shares, vectors.data(), m);
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run(
        [&](const Share& share) { kernel(Terms{from(share), factors.data(), m}, share.first, share.count); });
  }

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
  mix.run(1, [&](const Terms& terms, std::size_t first, std::size_t n) {
    active<UpdateKernels>().push_sum_f32(terms, divisor, mix.out.data + first, ratio.data + first, n,
                                         streams(mix.out.size));
  });
}

void tracking_f32(const py::sequence& x, const py::sequence& weights, py::handle gradient_object,
                  py::handle previous_object, py::handle out_object) {
  const Mix mix(x, weights, out_object);
  const Array<float> gradient = mix.also(gradient_object, "gradient", false);
  const Array<float> previous = mix.also(previous_object, "previous", true);
  require_apart(gradient, previous);
  mix.run(3, [&](const Terms& terms, std::size_t first, std::size_t n) {
    active<UpdateKernels>().tracking_f32(terms, gradient.data + first, previous.data + first,
                                         mix.out.data + first, n, streams(mix.out.size));
  });
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
  mix.run(3, [&](const Terms& terms, std::size_t first, std::size_t n) {
    active<UpdateKernels>().momentum_f32(terms, gradient.data + first, momentum, rate, velocity.data + first,
                                         mix.out.data + first, n, streams(mix.out.size));
  });
}

}  // namespace

void bind_update(Module& m) {
  m.def("push_sum_f32", push_sum_f32, py::arg("x"), py::arg("weights"), py::arg("divisor"), py::arg("out"),
        py::arg("ratio"));
  m.def("tracking_f32", tracking_f32, py::arg("x"), py::arg("weights"), py::arg("gradient"),
        py::arg("previous"), py::arg("out"));
  m.def("momentum_f32", momentum_f32, py::arg("x"), py::arg("weights"), py::arg("gradient"),
        py::arg("momentum"), py::arg("lr"), py::arg("velocity"), py::arg("out"));
}

}  // namespace pydec::bindings
