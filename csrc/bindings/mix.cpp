#include "pydec/mix.h"

#include <vector>

#include "bindings/buckets.h"
#include "bindings/states.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Without the GIL; x has as many vectors as there are factors.
template <class T>
void mix(T* const* x, const std::vector<Real<T>>& factors, const Array<T>& out) {
  const std::size_t m = factors.size();
  const MixKernels& kernels = active<MixKernels>();
  const Shares shares(out.size, sizeof(T) * (m + 1), kShareUnit, lead_of(out.data));
  Pieces<T> pieces(shares, parts_of<T>(x, m, {{out.data, Use::write}}));
  shares.run([&, kernel = by_type<T>(kernels.mix_f32, kernels.mix_f64)](const Share& share) {
    pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
      kernel(v, factors.data(), m, v[m], piece.count, streams_state<T>(out.size));
    });
  });
}

void mix_state(const py::sequence& x, const py::sequence& weights, py::handle out_object) {
  const std::size_t m = x.size();
  if (m == 0) throw py::value_error("mix needs at least one vector, got none");
  if (weights.size() != m) {
    throw py::value_error("mix needs one weight for each vector, got " + std::to_string(weights.size()) +
                          " weights for " + std::to_string(m) + " vectors");
  }
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const Vectors<T> vectors(out, x, "x", out.output().size, "as out has");
    vectors.apart(out, true);
    const auto factors = weights_of<Real<T>>(weights, m);
    py::gil_scoped_release nogil;  // touches no Python object
    mix(vectors.pointers.data(), factors, out);
  });
}

/// The buckets of a call, the first of which is `first` or, without buckets, nothing.
template <class T>
void mix_buckets(const Array<T>& first, const py::sequence& x, const py::sequence& weights,
                 const py::tuple& outs) {
  const std::size_t m = x.size();
  const auto factors = weights_of<Real<T>>(weights, m);
  const std::size_t buckets = outs.size();
  std::vector<Array<T>> outputs;
  outputs.reserve(buckets);
  Written written;
  for (std::size_t b = 0; b < buckets; ++b) {
    outputs.push_back(beside(first, outs[b], item_name("out", b)));
    written.add(outputs.back());
  }
  written.close();
  const py::tuple lists = items_of(x);
  std::vector<py::tuple> held;  // keeps the vectors alive
  std::vector<T*> inputs(m * buckets);
  for (std::size_t k = 0; k < m; ++k) {
    held.push_back(items_of(lists[k], item_name("x", k), buckets, "as out has"));
    for (std::size_t b = 0; b < buckets; ++b) {
      const Array<T> input = beside(first, held.back()[b], item_name("x", k, b));
      written.require_apart_from(input.sized(outputs[b].size, "as its out has"), &outputs[b]);
      inputs[b * m + k] = input.data;
    }
  }
  py::gil_scoped_release nogil;  // touches no Python object
  for (std::size_t b = 0; b < buckets; ++b) mix(inputs.data() + b * m, factors, outputs[b]);
}

void mix_many(const py::sequence& x, const py::sequence& weights, const py::sequence& out) {
  if (x.size() == 0) throw py::value_error("mix needs at least one vector, got none");
  const py::tuple outs = items_of(out);
  with_first_state(outs, "out",
                   [&]<class T>(const Array<T>& first) { mix_buckets(first, x, weights, outs); });
}

}  // namespace

void bind_mix(Module& m) {
  m.def("mix_many_f32", mix_many, py::arg("x"), py::arg("weights"), py::arg("out"));
  m.def("mix_f32", mix_state, py::arg("x"), py::arg("weights"), py::arg("out"));
}

}  // namespace pydec::bindings
