#include "bindings/cuda_arrays.h"
#include "bindings/quant.h"
#include "pydec/cuda.h"

namespace pydec::bindings {
namespace {

constexpr const char* kCodesWhy = "the bytes of the elements' codes";
constexpr const char* kScalesWhy = "one for each block";

/// Codes, scales and places of every bucket's message, and how it is coded; checked.
struct Targets {
  Targets(Place& place, const py::object& codes_list, const py::object& scales_list, const std::string& name,
          std::ptrdiff_t block_option, const py::object& key_object, const py::sequence& first_list,
          const Devices<float>& x)
      : codec(codec_named(name)),
        block(checked_block(codec, block_option)),
        codes(place, codes_list, "codes", x.items.size()),
        scales(place, scales_list, "scales", x.items.size()),
        stochastic(!key_object.is_none()) {
    codes.output().sized([&](std::size_t k) { return code_bytes(codec, x.items[k].size); }, kCodesWhy);
    scales.output().sized([&](std::size_t k) { return blocks_of(x.items[k].size, block); }, kScalesWhy);
    codes.apart(scales);
    apart(x);
    const py::tuple firsts = items_of(first_list);
    if (firsts.size() != x.items.size()) {
      throw py::value_error("first must be one number for each bucket, got " + std::to_string(firsts.size()) +
                            " for " + std::to_string(x.items.size()));
    }
    for (std::size_t k = 0; k < firsts.size(); ++k) {
      const Draw draw = draw_of(codec, key_object, py::cast<std::uint64_t>(py::object(firsts[k])));
      first.push_back(draw.first);
      key = draw.key;
    }
  }

  const Targets& apart(const Devices<float>& other) const {
    codes.apart(other);
    scales.apart(other);
    return *this;
  }

  const std::uint64_t* key_pointer() const { return stochastic ? &key : nullptr; }

  Codec codec;
  std::size_t block;
  Devices<std::uint8_t> codes;
  Devices<float> scales;
  bool stochastic;
  std::uint64_t key = 0;
  std::vector<std::uint64_t> first;
};

void encode_f32(const py::sequence& x_list, const py::object& residual_list, const py::object& codes_list,
                const py::object& scales_list, const std::string& name, std::ptrdiff_t block,
                const py::object& key, const py::sequence& first, const py::object& bad_object) {
  const std::size_t count = x_list.size();
  Place place;
  const Devices<float> x(place, x_list, "x", count);
  const Devices<float> residual(place, residual_list, "residual", count, true);
  const Targets to(place, codes_list, scales_list, name, block, key, first, x);
  residual.output().sized([&x](std::size_t k) { return x.items[k].size; }, "as x has").apart(x);
  to.apart(residual);
  auto* bad = counter(place, bad_object, "bad");
  std::vector<cuda::EncodeSpan> spans;
  for (std::size_t k = 0; k < count; ++k) {
    spans.push_back(
        {x.data[k], residual.data[k], x.items[k].size, to.codes.data[k], to.scales.data[k], to.first[k]});
  }
  place.run("quant_encode_f32", [&](cudaStream_t stream) {
    return cuda::quant_encode_f32(to.codec, spans.data(), count, to.block, to.key_pointer(), bad, stream);
  });
}

void encode_difference_f32(const py::sequence& x_list, const py::object& y_list, const py::object& codes_list,
                           const py::object& scales_list, const std::string& name, std::ptrdiff_t block,
                           const py::object& key, const py::sequence& first, const py::object& bad_object) {
  const std::size_t count = x_list.size();
  Place place;
  const Devices<float> x(place, x_list, "x", count);
  const Devices<float> y(place, y_list, "y", count);
  const Targets to(place, codes_list, scales_list, name, block, key, first, x);
  y.sized([&x](std::size_t k) { return x.items[k].size; }, "as x has");
  to.apart(y);
  auto* bad = counter(place, bad_object, "bad");
  std::vector<cuda::DifferenceSpan> spans;
  for (std::size_t k = 0; k < count; ++k) {
    spans.push_back(
        {x.data[k], y.data[k], x.items[k].size, to.codes.data[k], to.scales.data[k], to.first[k]});
  }
  place.run("quant_encode_difference_f32", [&](cudaStream_t stream) {
    return cuda::quant_encode_difference_f32(to.codec, spans.data(), count, to.block, to.key_pointer(), bad,
                                             stream);
  });
}

/// The messages of every bucket and where they go.
struct DeviceMessages {
  DeviceMessages(Place& place, const py::sequence& codes_list, const py::sequence& scales_list,
                 const py::object& out_list, Codec codec, std::size_t block, std::size_t m)
      : codes(place, codes_list, "codes", m),
        scales(place, scales_list, "scales", m),
        out(place, out_list, "out", codes_list.size()) {
    if (scales.lists.size() != codes.lists.size()) {
      throw py::value_error("scales must be one list for each bucket, got " +
                            std::to_string(scales.lists.size()) + " for " +
                            std::to_string(codes.lists.size()));
    }
    out.output();
    for (std::size_t k = 0; k < out.items.size(); ++k) {
      const std::size_t n = out.items[k].size;
      for (std::size_t j = 0; j < m; ++j) {
        codes.lists[k].items[j].sized(code_bytes(codec, n), kCodesWhy);
        scales.lists[k].items[j].sized(blocks_of(n, block), kScalesWhy);
        require_apart(codes.lists[k].items[j], out.items[k]);
        require_apart(scales.lists[k].items[j], out.items[k]);
      }
      spans.push_back({codes.data(k), scales.data(k), out.data[k], n});
    }
  }

  DeviceLists<std::uint8_t> codes;
  DeviceLists<float> scales;
  Devices<float> out;
  std::vector<cuda::DecodeSpan> spans;
};

void decode_f32(const py::sequence& codes, const py::sequence& scales, const py::object& out,
                const std::string& name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(name);
  const std::size_t block = checked_block(codec, block_option);
  Place place;
  const DeviceMessages all(place, codes, scales, out, codec, block, 1);
  place.run("quant_decode_f32", [&](cudaStream_t stream) {
    return cuda::quant_decode_f32(codec, all.spans.data(), all.spans.size(), block, stream);
  });
}

void accumulate_f32(const py::sequence& codes, const py::sequence& scales, const py::sequence& weight_values,
                    const py::object& out, const std::string& name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(name);
  const std::size_t block = checked_block(codec, block_option);
  const std::vector<float> weights = finite_weights(weight_values);
  Place place;
  const DeviceMessages all(place, codes, scales, out, codec, block, weights.size());
  place.run("quant_accumulate_f32", [&](cudaStream_t stream) {
    return cuda::quant_accumulate_f32(codec, all.spans.data(), all.spans.size(), block, weights.data(),
                                      weights.size(), stream);
  });
}

void sqdist_f32(py::handle codes_object, py::handle scales_object, py::handle x_object,
                const std::string& name, std::ptrdiff_t block_option, py::handle out_object,
                py::handle work_object) {
  const Codec codec = codec_named(name);
  const std::size_t block = checked_block(codec, block_option);
  Place place;
  const Device<float> x(place, x_object, "x");
  const Device<std::uint8_t> codes(place, codes_object, "codes");
  const Device<float> scales(place, scales_object, "scales");
  const Device<double> out(place, out_object, "out");
  const Device<double> work(place, work_object, "work");
  codes.sized(code_bytes(codec, x.size), kCodesWhy);
  scales.sized(blocks_of(x.size, block), kScalesWhy);
  out.output().sized(1, "the distance");
  work.output().sized(cuda::sum_work(x.size), "sum_work(n)");
  require_all_apart(out, work, x, codes, scales);
  place.run("quant_sqdist_f32", [&](cudaStream_t stream) {
    return cuda::quant_sqdist_f32(codec, codes.data, scales.data, x.data, x.size, block, out.data, work.data,
                                  stream);
  });
}

void check(py::handle codes_object, py::handle scales_object, std::size_t n, const std::string& name,
           std::ptrdiff_t block_option, py::handle faults_object) {
  const Codec codec = codec_named(name);
  const std::size_t block = checked_block(codec, block_option);
  Place place;
  const Device<std::uint8_t> codes(place, codes_object, "codes");
  const Device<float> scales(place, scales_object, "scales");
  const Device<std::uint32_t> faults(place, faults_object, "faults");
  codes.sized(code_bytes(codec, n), kCodesWhy);
  scales.sized(blocks_of(n, block), kScalesWhy);
  faults.output().sized(1, "the faults");
  place.run("quant_check", [&](cudaStream_t stream) {
    return cuda::quant_check(codec, codes.data, scales.data, n, block, faults.data, stream);
  });
}

/// The vectors of a rank for every bucket, written, equally long and apart.
struct State {
  State(Place& place, const py::sequence& x_list, const py::object& estimate_list,
        const py::object& mixed_list)
      : x(place, x_list, "x", x_list.size()),
        estimate(place, estimate_list, "estimate", x_list.size()),
        mixed(place, mixed_list, "mixed", x_list.size()) {
    const auto size_of = [this](std::size_t k) { return x.items[k].size; };
    x.output();
    estimate.output().sized(size_of, "as x has").apart(x);
    mixed.output().sized(size_of, "as x has").apart(x).apart(estimate);
  }

  Devices<float> x;
  Devices<float> estimate;
  Devices<float> mixed;
};

void choco_step_f32(const py::sequence& x_list, const py::object& estimate_list, const py::object& mixed_list,
                    const py::object& gradient_list, double gamma, double own_weight, double lr,
                    const py::object& codes_list, const py::object& scales_list, const std::string& name,
                    std::ptrdiff_t block, const py::object& key, const py::sequence& first,
                    const py::object& bad_object) {
  const std::size_t count = x_list.size();
  Place place;
  const State state(place, x_list, estimate_list, mixed_list);
  const Devices<float> gradient(place, gradient_list, "gradient", count, true);
  gradient.sized([&state](std::size_t k) { return state.x.items[k].size; }, "as x has");
  gradient.apart(state.x).apart(state.estimate).apart(state.mixed);
  const Targets to(place, codes_list, scales_list, name, block, key, first, state.x);
  to.apart(state.estimate).apart(state.mixed).apart(gradient);
  const ChocoFactors factors{finite_weight(gamma, "gamma"), finite_weight(own_weight, "own_weight"),
                             finite_weight(lr, "lr")};
  auto* bad = counter(place, bad_object, "bad");
  std::vector<cuda::ChocoSpan> spans;
  for (std::size_t k = 0; k < count; ++k) {
    spans.push_back({state.x.data[k], state.estimate.data[k], state.mixed.data[k], gradient.data[k],
                     state.x.items[k].size, to.codes.data[k], to.scales.data[k], to.first[k]});
  }
  place.run("choco_step_f32", [&](cudaStream_t stream) {
    return cuda::choco_step_f32(to.codec, spans.data(), count, factors, to.block, to.key_pointer(), bad,
                                stream);
  });
}

void choco_absorb_f32(const py::sequence& x_list, const py::object& estimate_list,
                      const py::object& mixed_list, double gamma_value, const py::sequence& codes_list,
                      const py::sequence& scales_list, const py::sequence& weight_values,
                      const std::string& name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(name);
  const std::size_t block = checked_block(codec, block_option);
  const float gamma = finite_weight(gamma_value, "gamma");
  const std::vector<float> weights = finite_weights(weight_values);
  if (weights.empty()) throw py::value_error("codes must hold the own message at least, got none");
  Place place;
  const State state(place, x_list, estimate_list, mixed_list);
  const DeviceMessages all(place, codes_list, scales_list, mixed_list, codec, block, weights.size());
  std::vector<cuda::AbsorbSpan> spans;
  for (std::size_t k = 0; k < all.spans.size(); ++k) {
    for (std::size_t j = 0; j < weights.size(); ++j) {
      require_all_apart(all.codes.lists[k].items[j], state.x.items[k], state.estimate.items[k]);
      require_all_apart(all.scales.lists[k].items[j], state.x.items[k], state.estimate.items[k]);
    }
    spans.push_back({state.x.data[k], state.estimate.data[k], state.mixed.data[k], all.spans[k].n,
                     all.spans[k].codes, all.spans[k].scales});
  }
  place.run("choco_absorb_f32", [&](cudaStream_t stream) {
    return cuda::choco_absorb_f32(codec, spans.data(), spans.size(), gamma, block, weights.data(),
                                  weights.size(), stream);
  });
}

}  // namespace

void bind_cuda_quant(py::module_& m) {
  m.def("quant_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"),
        py::arg("bad"));
  m.def("quant_decode_f32", decode_f32, py::arg("codes"), py::arg("scales"), py::arg("out"), py::arg("codec"),
        py::arg("block"));
  m.def("quant_accumulate_f32", accumulate_f32, py::arg("codes"), py::arg("scales"), py::arg("weights"),
        py::arg("out"), py::arg("codec"), py::arg("block"));
  m.def("quant_sqdist_f32", sqdist_f32, py::arg("codes"), py::arg("scales"), py::arg("x"), py::arg("codec"),
        py::arg("block"), py::arg("out"), py::arg("work"));
  m.def("quant_check", check, py::arg("codes"), py::arg("scales"), py::arg("n"), py::arg("codec"),
        py::arg("block"), py::arg("faults"));
  m.def("quant_encode_difference_f32", encode_difference_f32, py::arg("x"), py::arg("y"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"),
        py::arg("bad"));
  m.def("choco_step_f32", choco_step_f32, py::arg("x"), py::arg("estimate"), py::arg("mixed"),
        py::arg("gradient"), py::arg("gamma"), py::arg("own_weight"), py::arg("lr"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"),
        py::arg("bad"));
  m.def("choco_absorb_f32", choco_absorb_f32, py::arg("x"), py::arg("estimate"), py::arg("mixed"),
        py::arg("gamma"), py::arg("codes"), py::arg("scales"), py::arg("weights"), py::arg("codec"),
        py::arg("block"));
}

}  // namespace pydec::bindings
