#include "bindings/cuda_arrays.h"
#include "pydec/cuda.h"

namespace pydec::bindings {
namespace {

/// Buckets of a mix: m inputs each, and their outputs.
struct Mixes {
  Mixes(Place& place, const py::sequence& x, const py::sequence& weight_values, const py::object& out_list)
      : weights(finite_weights(weight_values)),
        inputs(place, x, "x", weights.size()),
        out(place, out_list, "out", x.size()) {
    if (weights.empty() || weights.size() > cuda::kMaxMix) {
      throw py::value_error("a mix on CUDA takes 1.." + std::to_string(cuda::kMaxMix) + " vectors, got " +
                            std::to_string(weights.size()));
    }
    out.output();
    for (std::size_t k = 0; k < x.size(); ++k) {
      for (const Device<float>& input : inputs.lists[k].items) {
        input.sized(out.items[k].size, "as out has");
        require_apart(input, out.items[k], true);
      }
      spans.push_back({inputs.data(k), out.data[k], out.items[k].size, nullptr, nullptr});
    }
  }

  /// Another output of every bucket, apart from all others.
  void add_state(const Devices<float>& state) {
    state.output().apart(out);
    for (std::size_t k = 0; k < spans.size(); ++k) {
      state.items[k].sized(out.items[k].size, "as out has");
      for (const Device<float>& input : inputs.lists[k].items) require_apart(input, state.items[k]);
      spans[k].state = state.data[k];
    }
  }

  void add_gradient(const Devices<float>& gradient, const Devices<float>& state) {
    gradient.apart(out).apart(state);
    for (std::size_t k = 0; k < spans.size(); ++k) {
      gradient.items[k].sized(out.items[k].size, "as out has");
      spans[k].gradient = gradient.data[k];
    }
  }

  std::vector<float> weights;
  DeviceLists<float> inputs;
  Devices<float> out;
  std::vector<cuda::MixSpan> spans;
};

void mix_f32(const py::sequence& x, const py::sequence& weights, const py::object& out) {
  Place place;
  const Mixes mixes(place, x, weights, out);
  place.run("mix_f32", [&](cudaStream_t stream) {
    return cuda::mix_f32(mixes.spans.data(), mixes.spans.size(), mixes.weights.data(), mixes.weights.size(),
                         stream);
  });
}

void push_sum_f32(const py::sequence& x, const py::sequence& weights, double divisor_value,
                  const py::object& out, const py::object& ratio_list) {
  const float divisor = finite_weight(divisor_value, "divisor");
  if (!(divisor > 0.0f)) {
    throw py::value_error("divisor must be positive, got " + std::to_string(divisor_value));
  }
  Place place;
  Mixes mixes(place, x, weights, out);
  const Devices<float> ratio(place, ratio_list, "ratio", x.size());
  mixes.add_state(ratio);
  place.run("push_sum_f32", [&](cudaStream_t stream) {
    return cuda::push_sum_f32(mixes.spans.data(), mixes.spans.size(), mixes.weights.data(),
                              mixes.weights.size(), divisor, stream);
  });
}

void tracking_f32(const py::sequence& x, const py::sequence& weights, const py::object& gradient_list,
                  const py::object& previous_list, const py::object& out) {
  Place place;
  Mixes mixes(place, x, weights, out);
  const Devices<float> gradient(place, gradient_list, "gradient", x.size());
  const Devices<float> previous(place, previous_list, "previous", x.size());
  mixes.add_state(previous);
  mixes.add_gradient(gradient, previous);
  place.run("tracking_f32", [&](cudaStream_t stream) {
    return cuda::tracking_f32(mixes.spans.data(), mixes.spans.size(), mixes.weights.data(),
                              mixes.weights.size(), stream);
  });
}

void momentum_f32(const py::sequence& x, const py::sequence& weights, const py::object& gradient_list,
                  double momentum_value, double rate_value, const py::object& velocity_list,
                  const py::object& out) {
  const float momentum = finite_weight(momentum_value, "momentum");
  const float rate = finite_weight(rate_value, "lr");
  Place place;
  Mixes mixes(place, x, weights, out);
  const Devices<float> gradient(place, gradient_list, "gradient", x.size());
  const Devices<float> velocity(place, velocity_list, "velocity", x.size());
  mixes.add_state(velocity);
  mixes.add_gradient(gradient, velocity);
  place.run("momentum_f32", [&](cudaStream_t stream) {
    return cuda::momentum_f32(mixes.spans.data(), mixes.spans.size(), mixes.weights.data(),
                              mixes.weights.size(), momentum, rate, stream);
  });
}

Half half_named(const std::string& name) {
  if (name == "bf16") return Half::bf16;
  if (name == "fp16") return Half::fp16;
  throw py::value_error("half must be bf16 or fp16, got '" + name + "'");
}

void cast_encode_f32(const py::sequence& x_list, const py::object& residual_list,
                     const py::object& codes_list, const std::string& half_name,
                     const py::object& bad_object) {
  const Half half = half_named(half_name);
  const std::size_t count = x_list.size();
  Place place;
  const Devices<float> x(place, x_list, "x", count);
  const Devices<float> residual(place, residual_list, "residual", count, true);
  const Devices<std::uint16_t> codes(place, codes_list, "codes", count);
  const auto size_of = [&x](std::size_t k) { return x.items[k].size; };
  codes.output().sized(size_of, "one for each element").apart(x);
  residual.output().sized(size_of, "as x has").apart(x).apart(codes);
  auto* bad = counter(place, bad_object, "bad");
  std::vector<cuda::CastSpan> spans;
  for (std::size_t k = 0; k < count; ++k) {
    spans.push_back({x.data[k], residual.data[k], x.items[k].size, codes.data[k]});
  }
  place.run("cast_encode_f32", [&](cudaStream_t stream) {
    return cuda::cast_encode_f32(half, spans.data(), count, bad, stream);
  });
}

/// The messages of every bucket and where they go.
struct HalfSpans {
  HalfSpans(Place& place, const py::sequence& codes_list, const py::object& out_list, std::size_t m)
      : codes(place, codes_list, "codes", m), out(place, out_list, "out", codes_list.size()) {
    out.output();
    for (std::size_t k = 0; k < out.items.size(); ++k) {
      for (const Device<std::uint16_t>& item : codes.lists[k].items) {
        item.sized(out.items[k].size, "as out has");
        require_apart(item, out.items[k]);
      }
      spans.push_back({codes.data(k), out.data[k], out.items[k].size});
    }
  }

  DeviceLists<std::uint16_t> codes;
  Devices<float> out;
  std::vector<cuda::HalfSpan> spans;
};

void cast_decode_f32(const py::sequence& codes, const py::object& out, const std::string& half_name) {
  const Half half = half_named(half_name);
  Place place;
  const HalfSpans all(place, codes, out, 1);
  place.run("cast_decode_f32", [&](cudaStream_t stream) {
    return cuda::cast_decode_f32(half, all.spans.data(), all.spans.size(), stream);
  });
}

void cast_accumulate_f32(const py::sequence& codes, const py::sequence& weight_values, const py::object& out,
                         const std::string& half_name) {
  const Half half = half_named(half_name);
  const std::vector<float> weights = finite_weights(weight_values);
  Place place;
  const HalfSpans all(place, codes, out, weights.size());
  place.run("cast_accumulate_f32", [&](cudaStream_t stream) {
    return cuda::cast_accumulate_f32(half, all.spans.data(), all.spans.size(), weights.data(), weights.size(),
                                     stream);
  });
}

void cast_count_nonfinite(py::handle codes_object, const std::string& half_name,
                          const py::object& bad_object) {
  const Half half = half_named(half_name);
  Place place;
  const Device<std::uint16_t> codes(place, codes_object, "codes");
  auto* bad = counter(place, bad_object, "bad");
  place.run("cast_count_nonfinite", [&](cudaStream_t stream) {
    return cuda::cast_count_nonfinite(half, codes.data, codes.size, bad, stream);
  });
}

}  // namespace

void bind_cuda_mix(py::module_& m) {
  m.def("mix_f32", mix_f32, py::arg("x"), py::arg("weights"), py::arg("out"));
  m.def("push_sum_f32", push_sum_f32, py::arg("x"), py::arg("weights"), py::arg("divisor"), py::arg("out"),
        py::arg("ratio"));
  m.def("tracking_f32", tracking_f32, py::arg("x"), py::arg("weights"), py::arg("gradient"),
        py::arg("previous"), py::arg("out"));
  m.def("momentum_f32", momentum_f32, py::arg("x"), py::arg("weights"), py::arg("gradient"),
        py::arg("momentum"), py::arg("rate"), py::arg("velocity"), py::arg("out"));
  m.def("cast_encode_f32", cast_encode_f32, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("half"), py::arg("bad"));
  m.def("cast_decode_f32", cast_decode_f32, py::arg("codes"), py::arg("out"), py::arg("half"));
  m.def("cast_accumulate_f32", cast_accumulate_f32, py::arg("codes"), py::arg("weights"), py::arg("out"),
        py::arg("half"));
  m.def("cast_count_nonfinite", cast_count_nonfinite, py::arg("codes"), py::arg("half"), py::arg("bad"));
}

}  // namespace pydec::bindings
