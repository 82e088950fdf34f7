#include "bindings/quant.h"

#include "bindings/buckets.h"
#include "bindings/quant_states.h"
#include "bindings/sums.h"
#include "bindings/vectors.h"
#include "pydec/reduce.h"

namespace pydec::bindings {
namespace {

/// Without the GIL; draw null rounds to nearest.
template <class T>
std::size_t encode(Codec codec, std::size_t block, const Array<T>& x, T* residual, const Draw* draw,
                   const Message& to) {
  const auto kernel = active<QuantEncoders>().encode_f32[static_cast<int>(codec)];
  return encode_pieces<T>({{x.data, Use::read}, {residual, Use::update}}, x.size, codec, block, draw, to,
                          [&](Real<T>* const* v, const EncodePart& part) -> std::size_t {
                            if constexpr (std::is_same_v<T, double>) {
                              const DoubleCodec coder(codec, block, v + 2);
                              if (v[1] == nullptr) return coder.encode(v[0], part);
                              coder.sum({v[0], v[1]}, {1.0, 1.0}, v[1], part.n);
                              const std::size_t bad = coder.encode(v[1], part);
                              coder.settle(part, bad, -1.0, v[1]);
                              return bad;
                            } else {
                              return kernel(v[0], v[1], part.n, block, part.draw, part.codes, part.scales,
                                            part.stream);
                            }
                          });
}

/// Without the GIL; the weights of the messages are those given but rounded, and T's arithmetic takes its
/// own.
template <class T>
void accumulate(Codec codec, std::size_t block, const QuantMessage* messages, const double* weights,
                std::size_t m, const Array<T>& out) {
  const Shares shares(out.size, 2 * sizeof(T) + m, block_unit(block, out.size));
  SharedMessages from(shares, messages, m, codec, block);
  Pieces<T> pieces(shares, {{out.data, Use::update}}, block, kCodecRows<T>);
  const auto kernel = active<QuantDecoders>().accumulate_f32[static_cast<int>(codec)];
  shares.run([&](const Share& share) {
    pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
      const QuantMessage* const part = from(piece);
      if constexpr (std::is_same_v<T, double>) {
        const DoubleCodec coder(codec, block, v + 1);
        for (std::size_t k = 0; k < m; ++k) {
          const double* const value = coder.decode(part[k].codes, part[k].scales, piece.count);
          coder.sum({v[0], value}, {1.0, weights[k]}, v[0], piece.count);
        }
      } else {
        kernel(part, m, piece.count, block, v[0]);
      }
    });
  });
}

std::size_t encode_state(py::handle x_object, py::handle residual_object, py::handle codes, py::handle scales,
                         const std::string& codec, std::ptrdiff_t block, py::handle key,
                         std::uint64_t first) {
  return with_state(x_object, "x", [&]<class T>(const Array<T>& x) {
    const Encoding how(codes, scales, codec, block, key, first, x.size);
    require_all_apart(x, how.to.codes, how.to.scales);
    T* const residual = residual_of(residual_object, x, how.to.codes, how.to.scales);
    py::gil_scoped_release nogil;  // touches no Python object
    return encode(how.codec, how.block, x, residual, how.source(), how.to);
  });
}

std::size_t encode_difference(py::handle x_object, py::handle y_object, py::handle codes, py::handle scales,
                              const std::string& codec, std::ptrdiff_t block, py::handle key,
                              std::uint64_t first) {
  return with_state(x_object, "x", [&]<class T>(const Array<T>& x) {
    const Array<T> y = beside(x, y_object, "y");
    y.sized(x.size, "as x has");
    const Encoding how(codes, scales, codec, block, key, first, x.size);
    require_all_apart(x, how.to.codes, how.to.scales);
    require_all_apart(y, how.to.codes, how.to.scales);
    const auto kernel = active<QuantEncoders>().encode_difference_f32[how.index()];
    py::gil_scoped_release nogil;  // touches no Python object
    return encode_pieces<T>({{x.data, Use::read}, {y.data, Use::read}}, x.size, how.codec, how.block,
                            how.source(), how.to, [&](Real<T>* const* v, const EncodePart& part) {
                              if constexpr (std::is_same_v<T, double>) {
                                const DoubleCodec coder(how.codec, how.block, v + 2);
                                coder.sum({v[0], v[1]}, {1.0, -1.0}, coder.row(), part.n);
                                return coder.encode(coder.row(), part);
                              } else {
                                return kernel(v[0], v[1], part.n, part.block, part.draw, part.codes,
                                              part.scales, part.stream);
                              }
                            });
  });
}

void decode(py::handle codes_object, py::handle scales_object, py::handle out_object,
            const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const Message from(codes_object, scales_object, "codes", "scales", codec, out.output().size, block);
    from.apart(out);
    const Shares shares(out.size, sizeof(T) + 1, block_unit(block, out.size));
    Pieces<T> pieces(shares, {{out.data, Use::write}}, block, kCodecRows<T>);
    const auto kernel = active<QuantDecoders>().decode_f32[static_cast<int>(codec)];
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&](const Share& share) {
      pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
        const CodesAt at(from, codec, block, piece);
        if constexpr (std::is_same_v<T, double>) {
          DoubleCodec(codec, block, v + 1).decode_to(at.codes, at.scales, piece.count, v[0]);
        } else {
          kernel(at.codes, at.scales, piece.count, block, v[0], streams_state<T>(out.size));
        }
      });
    });
  });
}

void accumulate_state(const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
                      py::handle out_object, const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  with_state(out_object, "out", [&](const auto& out) {
    out.output();
    const Messages messages(codes, scales, weights, out.size, codec, block);
    messages.apart(out);
    py::gil_scoped_release nogil;  // touches no Python object
    accumulate(codec, block, messages.data(), messages.weights.data(), messages.size(), out);
  });
}

double sqdist_of(const Message& from, const Array<float>& x, const Shares& shares, Codec codec,
                 std::size_t block, ChunkSums& sums) {
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<QuantDecoders>().sqdist_f32[static_cast<int>(codec)]](const Share& share) {
    const CodesAt at(from, codec, block, share);
    kernel(at.codes, at.scales, x.data + share.first, share.count, block, sums.of(share.first));
  });
  return sums.total();
}

/// The same of other types: decodes a piece, and adds what is of one chunk to its lanes.
template <class T>
double sqdist_of(const Message& from, const Array<T>& x, const Shares& shares, Codec codec, std::size_t block,
                 ChunkSums& sums) {
  Pieces<T> pieces(shares, {{x.data, Use::read}}, block, 2);
  const auto& kernels = active<ReduceKernels>();
  const auto add = by_type<T>(kernels.add_differences_f32, kernels.add_differences_f64);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&](const Share& share) {
    double lane[kSumLanes] = {};
    pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
      const CodesAt at(from, codec, block, piece);
      if constexpr (std::is_same_v<T, double>) {
        DoubleCodec(codec, block, v + 1).decode(at.codes, at.scales, piece.count);
      } else {
        active<QuantDecoders>().decode_f32[static_cast<int>(codec)](at.codes, at.scales, piece.count, block,
                                                                    v[2], false);
      }
      for (std::size_t done = 0; done < piece.count;) {
        const std::size_t place = (piece.first + done) % kSumChunk;
        const std::size_t count = std::min(piece.count - done, kSumChunk - place);
        add(v[2] + done, v[0] + done, count, lane);
        done += count;
        if (place + count < kSumChunk && piece.first + done < x.size) continue;
        *sums.of(piece.first + done - 1) = sum_of_lanes(lane);
        std::fill_n(lane, kSumLanes, 0.0);
      }
    });
  });
  return sums.total();
}

double sqdist(py::handle codes_object, py::handle scales_object, py::handle x_object,
              const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  return with_state(x_object, "x", [&]<class T>(const Array<T>& x) {
    const Message from(codes_object, scales_object, "codes", "scales", codec, x.size, block);
    // A share starts a chunk of the sum and a block.
    ChunkSums sums(x.size);
    const Shares shares =
        Shares::of_length(x.size, std::lcm(std::min(block, x.size + 1), kSumChunk), sizeof(T) + 1);
    return sqdist_of(from, x, shares, codec, block, sums);
  });
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

template <class T>
std::size_t encode_buckets(const Array<T>& like, const py::tuple& x_items, py::handle residual_object,
                           py::handle codes_object, py::handle scales_object, Codec codec, std::size_t block,
                           const Draw* origin) {
  const std::size_t buckets = x_items.size();
  const py::tuple codes_items = items_of(codes_object, "codes", buckets, "as x has");
  const py::tuple scales_items = items_of(scales_object, "scales", buckets, "as x has");
  const bool feedback = !residual_object.is_none();
  const py::tuple residual_items =
      feedback ? items_of(residual_object, "residual", buckets, "as x has") : py::tuple();
  std::vector<Array<T>> x;
  std::vector<Message> to;
  std::vector<Array<T>> residual;
  Written written;
  for (std::size_t b = 0; b < buckets; ++b) {
    x.push_back(beside(like, x_items[b], item_name("x", b)));
    to.emplace_back(codes_items[b], scales_items[b], item_name("codes", b), item_name("scales", b), codec,
                    x[b].size, block);
    written.add(to[b].codes);
    written.add(to[b].scales);
    if (!feedback) continue;
    residual.push_back(beside(like, residual_items[b], item_name("residual", b)));
    written.add(residual[b].sized(x[b].size, "as its x has"));
  }
  written.close();
  for (const Array<T>& input : x) written.require_apart_from(input);
  py::gil_scoped_release nogil;  // touches no Python object
  Draw draw = origin != nullptr ? *origin : Draw{};
  std::size_t bad = 0;
  for (std::size_t b = 0; b < buckets; ++b) {
    bad += encode(codec, block, x[b], feedback ? residual[b].data : nullptr,
                  origin != nullptr ? &draw : nullptr, to[b]);
    draw.first += blocks_of(x[b].size, kCodeLanes) * kCodeLanes;
  }
  return bad;
}

std::size_t encode_many(const py::sequence& x_sequence, py::handle residual, py::handle codes,
                        py::handle scales, const std::string& codec_name, std::ptrdiff_t block_option,
                        py::handle key, std::uint64_t first) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const Draw draw = draw_of(codec, key, first);
  const py::tuple x = items_of(x_sequence);
  return with_first_state(x, "x", [&](const auto& like) {
    return encode_buckets(like, x, residual, codes, scales, codec, block, key.is_none() ? nullptr : &draw);
  });
}

template <class T>
void accumulate_buckets(const Array<T>& like, const py::sequence& codes, const py::sequence& scales,
                        const py::sequence& weights, const py::tuple& out_items, Codec codec,
                        std::size_t block) {
  const std::size_t m = codes.size();
  const std::vector<float> factors = weights_of(weights, m);
  const std::vector<double> exact = weights_of<double>(weights, m);
  const std::size_t buckets = out_items.size();
  std::vector<Array<T>> out;
  Written written;
  for (std::size_t b = 0; b < buckets; ++b) {
    out.push_back(beside(like, out_items[b], item_name("out", b)));
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
  for (std::size_t b = 0; b < buckets; ++b) {
    accumulate(codec, block, messages.data() + b * m, exact.data(), m, out[b]);
  }
}

void accumulate_many(const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
                     const py::sequence& out_sequence, const std::string& codec_name,
                     std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  const std::size_t m = codes.size();
  if (scales.size() != m || weights.size() != m) {
    throw py::value_error("codes, scales and weights must be equally many, got " + std::to_string(m) + ", " +
                          std::to_string(scales.size()) + " and " + std::to_string(weights.size()));
  }
  const py::tuple out = items_of(out_sequence);
  with_first_state(out, "out", [&](const auto& like) {
    accumulate_buckets(like, codes, scales, weights, out, codec, block);
  });
}

}  // namespace

void bind_quant(Module& m) {
  m.def("quant_encode_many_f32", encode_many, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"));
  m.def("quant_accumulate_many_f32", accumulate_many, py::arg("codes"), py::arg("scales"), py::arg("weights"),
        py::arg("out"), py::arg("codec"), py::arg("block"));
  m.def("quant_encode_f32", encode_state, py::arg("x"), py::arg("residual"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"));
  m.def("quant_encode_difference_f32", encode_difference, py::arg("x"), py::arg("y"), py::arg("codes"),
        py::arg("scales"), py::arg("codec"), py::arg("block"), py::arg("key"), py::arg("first"));
  m.def("quant_decode_f32", decode, py::arg("codes"), py::arg("scales"), py::arg("out"), py::arg("codec"),
        py::arg("block"));
  m.def("quant_accumulate_f32", accumulate_state, py::arg("codes"), py::arg("scales"), py::arg("weights"),
        py::arg("out"), py::arg("codec"), py::arg("block"));
  m.def("quant_sqdist_f32", sqdist, py::arg("codes"), py::arg("scales"), py::arg("x"), py::arg("codec"),
        py::arg("block"));
  m.def("quant_check", check, py::arg("codes"), py::arg("scales"), py::arg("n"), py::arg("codec"),
        py::arg("block"));
}

}  // namespace pydec::bindings
