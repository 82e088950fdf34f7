#include "pydec/quant_distance.h"

#include "bindings/quant.h"
#include "bindings/quant_shares.h"

namespace pydec::bindings {
namespace {

struct Asked {
  Codec codec;
  std::size_t block;
};

Asked checked(const std::string& codec_name, std::ptrdiff_t block_option) {
  const Codec codec = codec_named(codec_name);
  const std::size_t block = checked_block(codec, block_option);
  if (static_cast<int>(codec) >= kIntegerCodecs) {
    throw py::value_error("codec must be int8, int4 or int2, whose levels are integers, got '" + codec_name +
                          "'; decode one message and use quant_sqdist");
  }
  if (block > kMostSummed) {
    throw py::value_error("block must be at most " + std::to_string(kMostSummed) + " elements, got " +
                          std::to_string(block));
  }
  return {codec, block};
}

void sqdists(py::handle own_codes, py::handle own_scales, const py::sequence& codes,
             const py::sequence& scales, std::size_t n, const std::string& codec_name,
             std::ptrdiff_t block_option, py::handle out_object) {
  const auto [codec, block] = checked(codec_name, block_option);
  const Message mine(own_codes, own_scales, "own_codes", "own_scales", codec, n, block);
  const py::list ones(codes.size());
  for (std::size_t k = 0; k < codes.size(); ++k) ones[k] = 1.0;
  const Messages messages(codes, scales, ones, n, codec, block);
  const Array<double> out(out_object, "out");
  out.output().sized(messages.size(), "one for each message");
  mine.apart(out);
  messages.apart(out);
  const std::size_t m = messages.size();
  const Shares shares = Shares::of_length(n, distance_chunk(block), 1 + m);
  SharedMessages from(shares, messages.data(), m, codec, block);
  std::vector<double> sums(shares.size() * m);
  const auto kernel = active<QuantDistances>().sqdists[static_cast<int>(codec)];
  {
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&, codec = codec, block = block](const Share& share) {
      const CodesAt at(mine, codec, block, share);
      kernel({at.codes, at.scales, 1.0f}, from(share), m, share.count, block, sums.data() + share.index * m);
    });
  }
  for (std::size_t k = 0; k < m; ++k) {
    double total = 0.0;
    for (std::size_t chunk = 0; chunk < shares.size(); ++chunk) total += sums[chunk * m + k];
    out.put(k, total);
  }
}

void pairs(const py::sequence& codes, const py::sequence& scales, std::size_t n,
           const std::string& codec_name, std::ptrdiff_t block_option, py::handle out_object) {
  const auto [codec, block] = checked(codec_name, block_option);
  const py::list ones(codes.size());
  for (std::size_t k = 0; k < codes.size(); ++k) ones[k] = 1.0;
  const Messages messages(codes, scales, ones, n, codec, block);
  const std::size_t m = messages.size();
  if (m > kMostPaired) {
    throw py::value_error("at most " + std::to_string(kMostPaired) + " messages are paired, got " +
                          std::to_string(m));
  }
  const Array<double> out(out_object, "out");
  out.output().sized(m * m, "one for each pair");
  messages.apart(out);
  const Shares shares = Shares::of_length(n, distance_chunk(block), m);
  SharedMessages from(shares, messages.data(), m, codec, block);
  std::vector<double> sums(shares.size() * m * m);
  const auto kernel = active<QuantDistances>().pairs[static_cast<int>(codec)];
  {
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&, block = block](const Share& share) {
      kernel(from(share), m, share.count, block, sums.data() + share.index * m * m);
    });
  }
  for (std::size_t k = 0; k < m; ++k) {
    out.put(k * m + k, 0.0);
    for (std::size_t l = k + 1; l < m; ++l) {
      double total = 0.0;
      for (std::size_t chunk = 0; chunk < shares.size(); ++chunk) total += sums[(chunk * m + k) * m + l];
      out.put(k * m + l, total);
      out.put(l * m + k, total);
    }
  }
}

}  // namespace

void bind_quant_distance(Module& m) {
  m.def("quant_sqdists", sqdists, py::arg("own_codes"), py::arg("own_scales"), py::arg("codes"),
        py::arg("scales"), py::arg("n"), py::arg("codec"), py::arg("block"), py::arg("out"));
  m.def("quant_pair_sqdists", pairs, py::arg("codes"), py::arg("scales"), py::arg("n"), py::arg("codec"),
        py::arg("block"), py::arg("out"));
}

}  // namespace pydec::bindings
