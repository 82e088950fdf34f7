#include "pydec/quant.h"

#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

constexpr const char* kNames[kCodecs] = {"int8", "int4", "int2", "sign", "e4m3", "e5m2"};

Codec codec_named(const std::string& name) {
  for (int i = 0; i < kCodecs; ++i) {
    if (name == kNames[i]) return static_cast<Codec>(i);
  }
  throw py::value_error("codec must be int8, int4, int2, sign, e4m3 or e5m2, got '" + name + "'");
}

std::size_t checked_block(Codec codec, std::ptrdiff_t block) {
  const std::size_t group = group_of(codec);
  if (block <= 0 || static_cast<std::size_t>(block) % group != 0) {
    throw py::value_error("block of " + std::string(kNames[static_cast<int>(codec)]) +
                          " must be a positive multiple of " + std::to_string(group) + " elements, got " +
                          std::to_string(block));
  }
  return static_cast<std::size_t>(block);
}

/// Codes and scales of n elements.
struct Message {
  Message(py::handle codes_object, py::handle scales_object, const Name& codes_name, const Name& scales_name,
          Codec codec, std::size_t n, std::size_t block)
      : codes(codes_object, codes_name), scales(scales_object, scales_name) {
    codes.sized(code_bytes(codec, n), "the bytes of the elements' codes");
    scales.sized(blocks_of(n, block), "one for each block");
  }

  Array<std::uint8_t> codes;
  Array<float> scales;
};

std::size_t encode_f32(py::handle x_object, py::handle residual_object, py::handle codes_object,
                       py::handle scales_object, const std::string& codec_name, std::ptrdiff_t block_option,
                       py::handle key_object, std::uint64_t first) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Array<float> x(x_object, "x");
  const Message to(codes_object, scales_object, "codes", "scales", codec, x.size, block);
  to.codes.output();
  to.scales.output();
  require_all_apart(x, to.codes, to.scales);
  F32* residual = residual_of(residual_object, x, to.codes, to.scales);
  Draw draw{0, first};
  const bool stochastic = !key_object.is_none();
  if (stochastic) {
    if (codec != Codec::int8 && codec != Codec::int4 && codec != Codec::int2) {
      throw py::value_error(codec_name + " has no stochastic rounding; pass key=None");
    }
    if (first % kCodeLanes != 0) {
      throw py::value_error("first must be a multiple of 16, got " + std::to_string(first));
    }
    draw.key = py::cast<std::uint64_t>(key_object);
  }
  py::gil_scoped_release nogil;  // touches no Python object
  return active<QuantEncoders>().encode_f32[static_cast<int>(codec)](
      x.data, residual, x.size, block, stochastic ? &draw : nullptr, to.codes.data, to.scales.data);
}

void decode_f32(py::handle codes_object, py::handle scales_object, py::handle out_object,
                const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Array<float> out(out_object, "out");
  const Message from(codes_object, scales_object, "codes", "scales", codec, out.output().size, block);
  require_apart(from.codes, out);
  require_apart(from.scales, out);
  py::gil_scoped_release nogil;  // touches no Python object
  active<QuantDecoders>().decode_f32[static_cast<int>(codec)](from.codes.data, from.scales.data, out.size,
                                                              block, out.data);
}

void accumulate_f32(const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
                    py::handle out_object, const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const std::size_t m = codes.size();
  if (scales.size() != m || weights.size() != m) {
    throw py::value_error("codes, scales and weights must be equally many, got " + std::to_string(m) + ", " +
                          std::to_string(scales.size()) + " and " + std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  out.output();
  const py::tuple all_codes = items_of(codes);
  const py::tuple all_scales = items_of(scales);
  std::vector<QuantMessage> messages(m);
  for (std::size_t k = 0; k < m; ++k) {
    const Message from(all_codes[k], all_scales[k], item_name("codes", k), item_name("scales", k), codec,
                       out.size, block);
    require_apart(from.codes, out);
    require_apart(from.scales, out);
    messages[k] = {from.codes.data, from.scales.data,
                   weight_of(py::object(weights[k]), item_name("weights", k))};
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<QuantDecoders>().accumulate_f32[static_cast<int>(codec)](messages.data(), m, out.size, block,
                                                                  out.data);
}

double sqdist_f32(py::handle codes_object, py::handle scales_object, py::handle x_object,
                  const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Array<float> x(x_object, "x");
  const Message from(codes_object, scales_object, "codes", "scales", codec, x.size, block);
  py::gil_scoped_release nogil;  // touches no Python object
  return active<QuantDecoders>().sqdist_f32[static_cast<int>(codec)](from.codes.data, from.scales.data,
                                                                     x.data, x.size, block);
}

unsigned check(py::handle codes_object, py::handle scales_object, std::size_t n,
               const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Message from(codes_object, scales_object, "codes", "scales", codec, n, block);
  py::gil_scoped_release nogil;  // touches no Python object
  return active<QuantDecoders>().check[static_cast<int>(codec)](from.codes.data, from.scales.data, n, block);
}

}  // namespace

void bind_quant(py::module_& m) {
  m.def("quant_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"));
  m.def("quant_decode_f32", decode_f32, py::arg("codes"), py::arg("scales"), py::arg("out"), py::arg("codec"),
        py::arg("block"));
  m.def("quant_accumulate_f32", accumulate_f32, py::arg("codes"), py::arg("scales"), py::arg("weights"),
        py::arg("out"), py::arg("codec"), py::arg("block"));
  m.def("quant_sqdist_f32", sqdist_f32, py::arg("codes"), py::arg("scales"), py::arg("x"), py::arg("codec"),
        py::arg("block"));
  m.def("quant_check", check, py::arg("codes"), py::arg("scales"), py::arg("n"), py::arg("codec"),
        py::arg("block"));
}

}  // namespace pydec::bindings
