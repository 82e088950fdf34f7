#include "bindings/quant.h"

#include "bindings/buckets.h"
#include "bindings/quant_shares.h"
#include "bindings/sums.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Without the GIL; draw null rounds to nearest.
std::size_t encode(Codec codec, std::size_t block, const Array<float>& x, float* residual, const Draw* draw,
                   const Message& to) {
  const bool stream = to.codes.size >= kStreamBytes;
  return encode_shares(x.size, residual != nullptr ? 13 : 5, codec, block, draw, to,
                       [&, kernel = active<QuantEncoders>().encode_f32[static_cast<int>(codec)]](
                           const Share& share, const Draw* from, std::uint8_t* codes, float* scales) {
                         return kernel(x.data + share.first, shifted(residual, share), share.count, block,
                                       from, codes, scales, stream);
                       });
}

/// Without the GIL.
void accumulate(Codec codec, std::size_t block, const QuantMessage* messages, std::size_t m,
                const Array<float>& out) {
  const Shares shares(out.size, 8 + m, block_unit(block, out.size));
  SharedMessages from(shares, messages, m, codec, block);
  shares.run([&, kernel = active<QuantDecoders>().accumulate_f32[static_cast<int>(codec)]](
                 const Share& share) { kernel(from(share), m, share.count, block, out.data + share.first); });
}

std::size_t encode_f32(py::handle x_object, py::handle residual_object, py::handle codes, py::handle scales,
                       const std::string& codec, std::ptrdiff_t block, py::handle key, std::uint64_t first) {
  const Array<float> x(x_object, "x");
  const Encoding how(codes, scales, codec, block, key, first, x.size);
  require_all_apart(x, how.to.codes, how.to.scales);
  F32* residual = residual_of(residual_object, x, how.to.codes, how.to.scales);
  py::gil_scoped_release nogil;  // touches no Python object
  return encode(how.codec, how.block, x, residual, how.source(), how.to);
}

std::size_t encode_difference_f32(py::handle x_object, py::handle y_object, py::handle codes,
                                  py::handle scales, const std::string& codec, std::ptrdiff_t block,
                                  py::handle key, std::uint64_t first) {
  const Array<float> x(x_object, "x");
  const Array<float> y(y_object, "y");
  y.sized(x.size, "as x has");
  const Encoding how(codes, scales, codec, block, key, first, x.size);
  require_all_apart(x, how.to.codes, how.to.scales);
  require_all_apart(y, how.to.codes, how.to.scales);
  py::gil_scoped_release nogil;  // touches no Python object
  return encode_shares(x.size, 9, how.codec, how.block, how.source(), how.to,
                       [&, kernel = active<QuantEncoders>().encode_difference_f32[how.index()]](
                           const Share& share, const Draw* from, std::uint8_t* to, float* to_scales) {
                         return kernel(x.data + share.first, y.data + share.first, share.count, how.block,
                                       from, to, to_scales, how.stream);
                       });
}

void decode_f32(py::handle codes_object, py::handle scales_object, py::handle out_object,
                const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Array<float> out(out_object, "out");
  const Message from(codes_object, scales_object, "codes", "scales", codec, out.output().size, block);
  require_apart(from.codes, out);
  require_apart(from.scales, out);
  const Shares shares(out.size, 5, block_unit(block, out.size));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<QuantDecoders>().decode_f32[static_cast<int>(codec)]](const Share& share) {
    const CodesAt at(from, codec, block, share);
    kernel(at.codes, at.scales, share.count, block, out.data + share.first, streams(out.size));
  });
}

void accumulate_f32(const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
                    py::handle out_object, const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Array<float> out(out_object, "out");
  out.output();
  const Messages messages(codes, scales, weights, out, codec, block);
  messages.apart(out);
  py::gil_scoped_release nogil;  // touches no Python object
  accumulate(codec, block, messages.data(), messages.size(), out);
}

double sqdist_f32(py::handle codes_object, py::handle scales_object, py::handle x_object,
                  const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Array<float> x(x_object, "x");
  const Message from(codes_object, scales_object, "codes", "scales", codec, x.size, block);
  // A share starts a chunk of the sum and a block.
  ChunkSums sums(x.size);
  const Shares shares =
      Shares::of_length(x.size, std::lcm(std::min(block, x.size + 1), kSumChunk), sizeof(float) + 1);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<QuantDecoders>().sqdist_f32[static_cast<int>(codec)]](const Share& share) {
    const CodesAt at(from, codec, block, share);
    kernel(at.codes, at.scales, x.data + share.first, share.count, block, sums.of(share.first));
  });
  return sums.total();
}

unsigned check(py::handle codes_object, py::handle scales_object, std::size_t n,
               const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Message from(codes_object, scales_object, "codes", "scales", codec, n, block);
  const Shares shares(n, 1, block_unit(block, n));
  std::atomic<unsigned> faults{0};
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<QuantDecoders>().check[static_cast<int>(codec)]](const Share& share) {
    const CodesAt at(from, codec, block, share);
    faults.fetch_or(kernel(at.codes, at.scales, share.count, block), std::memory_order_relaxed);
  });
  return faults.load(std::memory_order_relaxed);
}

std::size_t encode_many_f32(const py::sequence& x_sequence, py::handle residual_object,
                            py::handle codes_object, py::handle scales_object, const std::string& codec_name,
                            std::ptrdiff_t block_option, py::handle key_object, std::uint64_t first) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const bool stochastic = !key_object.is_none();
  Draw draw = draw_of(codec, key_object, first);
  const py::tuple x_items = items_of(x_sequence);
  const std::size_t buckets = x_items.size();
  const py::tuple codes_items = items_of(codes_object, "codes", buckets, "as x has");
  const py::tuple scales_items = items_of(scales_object, "scales", buckets, "as x has");
  const bool feedback = !residual_object.is_none();
  const py::tuple residual_items =
      feedback ? items_of(residual_object, "residual", buckets, "as x has") : py::tuple();
  std::vector<Array<float>> x;
  std::vector<Message> to;
  std::vector<Array<float>> residual;
  Written written;
  for (std::size_t b = 0; b < buckets; ++b) {
    x.emplace_back(x_items[b], item_name("x", b));
    to.emplace_back(codes_items[b], scales_items[b], item_name("codes", b), item_name("scales", b), codec,
                    x[b].size, block);
    written.add(to[b].codes);
    written.add(to[b].scales);
    if (!feedback) continue;
    residual.emplace_back(residual_items[b], item_name("residual", b)).sized(x[b].size, "as its x has");
    written.add(residual[b]);
  }
  written.close();
  for (const Array<float>& input : x) written.require_apart_from(input);
  py::gil_scoped_release nogil;  // touches no Python object
  std::size_t bad = 0;
  for (std::size_t b = 0; b < buckets; ++b) {
    bad += encode(codec, block, x[b], feedback ? residual[b].data : nullptr, stochastic ? &draw : nullptr,
                  to[b]);
    draw.first += blocks_of(x[b].size, kCodeLanes) * kCodeLanes;
  }
  return bad;
}

void accumulate_many_f32(const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
                         const py::sequence& out_sequence, const std::string& codec_name,
                         std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const std::size_t m = codes.size();
  if (scales.size() != m || weights.size() != m) {
    throw py::value_error("codes, scales and weights must be equally many, got " + std::to_string(m) + ", " +
                          std::to_string(scales.size()) + " and " + std::to_string(weights.size()));
  }
  const std::vector<float> factors = weights_of(weights, m);
  const py::tuple out_items = items_of(out_sequence);
  const std::size_t buckets = out_items.size();
  std::vector<Array<float>> out;
  Written written;
  for (std::size_t b = 0; b < buckets; ++b) {
    out.emplace_back(out_items[b], item_name("out", b));
    written.add(out[b]);
  }
  written.close();
  const py::tuple all_codes = items_of(codes);
  const py::tuple all_scales = items_of(scales);
  std::vector<py::tuple> held;  // keeps the vectors alive
  std::vector<QuantMessage> messages(m * buckets);
  for (std::size_t k = 0; k < m; ++k) {
    const py::tuple codes_items = items_of(all_codes[k], item_name("codes", k), buckets, "as out has");
    const py::tuple scales_items = items_of(all_scales[k], item_name("scales", k), buckets, "as out has");
    for (std::size_t b = 0; b < buckets; ++b) {
      const Message from(codes_items[b], scales_items[b], item_name("codes", k, b), item_name("scales", k, b),
                         codec, out[b].size, block);
      written.require_apart_from(from.codes);
      written.require_apart_from(from.scales);
      messages[b * m + k] = {from.codes.data, from.scales.data, factors[k]};
    }
    held.push_back(codes_items);
    held.push_back(scales_items);
  }
  py::gil_scoped_release nogil;  // touches no Python object
  for (std::size_t b = 0; b < buckets; ++b) accumulate(codec, block, messages.data() + b * m, m, out[b]);
}

}  // namespace

void bind_quant(Module& m) {
  m.def("quant_encode_many_f32", encode_many_f32, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"));
  m.def("quant_accumulate_many_f32", accumulate_many_f32, py::arg("codes"), py::arg("scales"),
        py::arg("weights"), py::arg("out"), py::arg("codec"), py::arg("block"));
  m.def("quant_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"));
  m.def("quant_encode_difference_f32", encode_difference_f32, py::arg("x"), py::arg("y"), py::arg("codes"),
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
