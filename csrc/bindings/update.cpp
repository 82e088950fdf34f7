#include "pydec/update.h"

#include <utility>

#include "bindings/states.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Vectors, weights and the output of a mix, checked.
template <class T>
struct Mix {
  Mix(const Array<T>& output, const py::sequence& x, const py::sequence& weights)
      : out(output),
        vectors(out, x, "x", out.output().size, "as out has"),
        factors(weights_of<Real<T>>(weights, vectors.size())) {
    if (vectors.size() == 0) throw py::value_error("x must have at least one vector, got none");
    vectors.apart(out, true);
  }

  /// Another vector, apart from `out`, and from every x[k] if it is written.
  Array<T> also(py::handle object, const char* name, bool written) const {
    Array<T> array = beside(out, object, name);
    array.sized(out.size, "as out has");
    require_apart(array, out);
    if (written) {
      array.output();
      vectors.apart(array);
    }
    return array;
  }

  /// Calls kernel(terms, out, others, elements, stream) on pieces, with `others` more vectors.
  template <class Kernel>
  void run(std::initializer_list<Part<T>> others, const Kernel& kernel) const {
    const std::size_t m = factors.size();
    std::vector<Part<T>> parts = parts_of<T>(vectors.pointers.data(), m, {{out.data, Use::write}});
    parts.insert(parts.end(), others);
    const Shares shares(out.size, sizeof(T) * (m + 2 * others.size()), kShareUnit, lead_of(out.data));
    Pieces<T> pieces(shares, std::move(parts));
    const bool stream = streams_state<T>(out.size);
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&](const Share& share) {
      pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
        kernel(TermsOf<Real<T>>{v, factors.data(), m}, v[m], v + m + 1, piece.count, stream);
      });
    });
  }

  const Array<T>& out;
  Vectors<T> vectors;
  std::vector<Real<T>> factors;
};

void push_sum(const py::sequence& x, const py::sequence& weights, double divisor_option,
              py::handle out_object, py::handle ratio_object) {
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const Mix<T> mix(out, x, weights);
    const Array<T> ratio = mix.also(ratio_object, "ratio", true);
    const auto divisor = finite_weight<Real<T>>(divisor_option, "divisor");
    if (!(divisor > 0)) {
      throw py::value_error("divisor must be a positive " + std::string(name_of(dtype_of<Real<T>>)) +
                            " number, got " + std::to_string(divisor_option));
    }
    const auto& kernels = active<UpdateKernels>();
    mix.run({{ratio.data, Use::write}},
            [&, kernel = by_type<T>(kernels.push_sum_f32, kernels.push_sum_f64)](
                const auto& terms, auto* to, auto* others, std::size_t n, bool stream) {
              kernel(terms, divisor, to, others[0], n, stream);
            });
  });
}

void tracking(const py::sequence& x, const py::sequence& weights, py::handle gradient_object,
              py::handle previous_object, py::handle out_object) {
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const Mix<T> mix(out, x, weights);
    const Array<T> gradient = mix.also(gradient_object, "gradient", false);
    const Array<T> previous = mix.also(previous_object, "previous", true);
    require_apart(gradient, previous);
    const auto& kernels = active<UpdateKernels>();
    mix.run({{gradient.data, Use::read}, {previous.data, Use::update}},
            [&, kernel = by_type<T>(kernels.tracking_f32, kernels.tracking_f64)](
                const auto& terms, auto* to, auto* others, std::size_t n, bool stream) {
              kernel(terms, others[0], others[1], to, n, stream);
            });
  });
}

void momentum(const py::sequence& x, const py::sequence& weights, py::handle gradient_object,
              double momentum_option, double rate_option, py::handle velocity_object, py::handle out_object) {
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const Mix<T> mix(out, x, weights);
    const Array<T> gradient = mix.also(gradient_object, "gradient", false);
    const Array<T> velocity = mix.also(velocity_object, "velocity", true);
    require_apart(gradient, velocity);
    const auto factor = finite_weight<Real<T>>(momentum_option, "momentum");
    const auto rate = finite_weight<Real<T>>(rate_option, "lr");
    const auto& kernels = active<UpdateKernels>();
    mix.run({{gradient.data, Use::read}, {velocity.data, Use::update}},
            [&, kernel = by_type<T>(kernels.momentum_f32, kernels.momentum_f64)](
                const auto& terms, auto* to, auto* others, std::size_t n, bool stream) {
              kernel(terms, others[0], factor, rate, others[1], to, n, stream);
            });
  });
}

}  // namespace

void bind_update(Module& m) {
  m.def("push_sum_f32", push_sum, py::arg("x"), py::arg("weights"), py::arg("divisor"), py::arg("out"),
        py::arg("ratio"));
  m.def("tracking_f32", tracking, py::arg("x"), py::arg("weights"), py::arg("gradient"), py::arg("previous"),
        py::arg("out"));
  m.def("momentum_f32", momentum, py::arg("x"), py::arg("weights"), py::arg("gradient"), py::arg("momentum"),
        py::arg("lr"), py::arg("velocity"), py::arg("out"));
}

}  // namespace pydec::bindings
