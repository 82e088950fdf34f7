#include "pydec/mix.h"

#include <vector>

#include "bindings/buckets.h"
#include "bindings/parallel.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Without the GIL; x has as many vectors as there are factors.
void mix(const float* const* x, const std::vector<float>& factors, const Array<float>& out) {
  const std::size_t m = factors.size();
  const Shares shares(out.size, sizeof(float) * (m + 1), kShareUnit, lead_of(out.data));
  ShiftedVectors<const float> from(shares, x, m);
  shares.run([&, kernel = active<MixKernels>().mix_f32](const Share& share) {
    kernel(from(share), factors.data(), m, out.data + share.first, share.count, streams(out.size));
  });
}

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
  mix(inputs.data(), factors, out);
}

void mix_many_f32(const py::sequence& x, const py::sequence& weights, const py::sequence& out) {
  const std::size_t m = x.size();
  if (m == 0) throw py::value_error("mix needs at least one vector, got none");
  const std::vector<float> factors = weights_of(weights, m);
  const py::tuple outs = items_of(out);
  const std::size_t buckets = outs.size();
  std::vector<Array<float>> outputs;
  outputs.reserve(buckets);
  Written written;
  for (std::size_t b = 0; b < buckets; ++b) {
    outputs.emplace_back(outs[b], item_name("out", b));
    written.add(outputs.back());
  }
  written.close();
  const py::tuple lists = items_of(x);
  std::vector<py::tuple> held;  // keeps the vectors alive
  std::vector<const float*> inputs(m * buckets);
  for (std::size_t k = 0; k < m; ++k) {
    held.push_back(items_of(lists[k], item_name("x", k), buckets, "as out has"));
    for (std::size_t b = 0; b < buckets; ++b) {
      const Array<float> input(held.back()[b], item_name("x", k, b));
      written.require_apart_from(input.sized(outputs[b].size, "as its out has"), &outputs[b]);
      inputs[b * m + k] = input.data;
    }
  }
  py::gil_scoped_release nogil;  // touches no Python object
  for (std::size_t b = 0; b < buckets; ++b) mix(inputs.data() + b * m, factors, outputs[b]);
}

}  // namespace

void bind_mix(Module& m) {
  m.def("mix_many_f32", mix_many_f32, py::arg("x"), py::arg("weights"), py::arg("out"));
  m.def("mix_f32", mix_f32, py::arg("x"), py::arg("weights"), py::arg("out"));
}

}  // namespace pydec::bindings
