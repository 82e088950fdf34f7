#include "pydec/choco.h"

#include "bindings/quant_shares.h"

namespace pydec::bindings {
namespace {

/// A rank's three vectors, writeable, equally long and apart; checked.
struct State {
  State(py::handle x_object, py::handle estimate_object, py::handle mixed_object)
      : x(x_object, "x"), estimate(estimate_object, "estimate"), mixed(mixed_object, "mixed") {
    x.output();
    estimate.output().sized(x.size, "as x has");
    mixed.output().sized(x.size, "as x has");
    require_all_apart(x, estimate, mixed);
  }

  Array<float> x;
  Array<float> estimate;
  Array<float> mixed;
};

ChocoState part_of(const ChocoState& state, const Share& share) {
  return {state.x + share.first, state.estimate + share.first, state.mixed + share.first,
          shifted(state.gradient, share)};
}

std::size_t step_f32(py::handle x, py::handle estimate, py::handle mixed, py::handle gradient_object,
                     double gamma, double own_weight, double lr, py::handle codes, py::handle scales,
                     const std::string& codec, std::ptrdiff_t block, py::handle key, std::uint64_t first) {
  const State arrays(x, estimate, mixed);
  const Encoding how(codes, scales, codec, block, key, first, arrays.x.size);
  how.to.apart(arrays.x, arrays.estimate, arrays.mixed);
  const ChocoFactors factors{finite_weight(gamma, "gamma"), finite_weight(own_weight, "own_weight"),
                             finite_weight(lr, "lr")};
  ChocoState state{arrays.x.data, arrays.estimate.data, arrays.mixed.data, nullptr};
  if (!gradient_object.is_none()) {
    const Array<float> gradient(gradient_object, "gradient");
    gradient.sized(arrays.x.size, "as x has");
    require_all_apart(gradient, arrays.x, arrays.estimate, arrays.mixed, how.to.codes, how.to.scales);
    state.gradient = gradient.data;
  }
  py::gil_scoped_release nogil;  // touches no Python object
  return encode_shares(arrays.x.size, state.gradient != nullptr ? 29 : 25, how.codec, how.block, how.source(),
                       how.to,
                       [&, kernel = active<ChocoKernels>().step_f32[how.index()]](
                           const Share& share, const Draw* from, std::uint8_t* to, float* to_scales) {
                         return kernel(part_of(state, share), factors, share.count, how.block, from, to,
                                       to_scales, how.stream);
                       });
}

void absorb_f32(py::handle x, py::handle estimate, py::handle mixed, double gamma, const py::sequence& codes,
                const py::sequence& scales, const py::sequence& weights, const std::string& codec_name,
                std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const State arrays(x, estimate, mixed);
  const Messages messages(codes, scales, weights, arrays.x, codec, block);
  messages.apart(arrays.x, arrays.estimate, arrays.mixed);
  if (messages.size() == 0) throw py::value_error("codes must hold the own message at least, got none");
  const float factor = finite_weight(gamma, "gamma");
  const ChocoState state{arrays.x.data, arrays.estimate.data, arrays.mixed.data, nullptr};
  const std::size_t m = messages.size();
  const Shares shares(arrays.x.size, 24 + m, block_unit(block, arrays.x.size));
  SharedMessages part(shares, messages.data(), m, codec, block);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<ChocoKernels>().absorb_f32[static_cast<int>(codec)]](const Share& share) {
    kernel(part_of(state, share), factor, part(share), m, share.count, block);
  });
}

}  // namespace

void bind_choco(Module& m) {
  m.def("choco_step_f32", step_f32, py::arg("x"), py::arg("estimate"), py::arg("mixed"),
        py::arg("gradient").none(true), py::arg("gamma"), py::arg("own_weight"), py::arg("lr"),
        py::arg("codes"), py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"),
        py::arg("first"));
  m.def("choco_absorb_f32", absorb_f32, py::arg("x"), py::arg("estimate"), py::arg("mixed"), py::arg("gamma"),
        py::arg("codes"), py::arg("scales"), py::arg("weights"), py::arg("codec"), py::arg("block"));
}

}  // namespace pydec::bindings
