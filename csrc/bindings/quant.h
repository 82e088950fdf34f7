// Arguments that the bindings of the quantisers have in common.
#pragma once

#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "pydec/quant.h"
#include "pydec/stream.h"

namespace pydec::bindings {

inline constexpr const char* kCodecNames[kCodecs] = {"int8", "int4", "int2", "sign", "e4m3", "e5m2"};

inline Codec codec_named(const std::string& name) {
  for (int i = 0; i < kCodecs; ++i) {
    if (name == kCodecNames[i]) return static_cast<Codec>(i);
  }
  throw py::value_error("codec must be int8, int4, int2, sign, e4m3 or e5m2, got '" + name + "'");
}

inline std::size_t checked_block(Codec codec, std::ptrdiff_t block) {
  const std::size_t group = group_of(codec);
  if (block <= 0 || static_cast<std::size_t>(block) % group != 0) {
    throw py::value_error("block of " + std::string(kCodecNames[static_cast<int>(codec)]) +
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

  /// Raises ValueError if it shares memory with one of the arrays.
  template <class... Arrays>
  void apart(const Arrays&... arrays) const {
    (require_apart(codes, arrays), ...);
    (require_apart(scales, arrays), ...);
  }

  Array<std::uint8_t> codes;
  Array<float> scales;
};

/// The draw that a key and the first element's place say; without a key it is not used.
inline Draw draw_of(Codec codec, py::handle key, std::uint64_t first) {
  if (key.is_none()) return {0, first};
  if (codec != Codec::int8 && codec != Codec::int4 && codec != Codec::int2) {
    throw py::value_error(std::string(kCodecNames[static_cast<int>(codec)]) +
                          " has no stochastic rounding; pass key=None");
  }
  if (first % kCodeLanes != 0) {
    throw py::value_error("first must be a multiple of 16, got " + std::to_string(first));
  }
  return {py::cast<std::uint64_t>(key), first};
}

/// Where an encoding goes and what random numbers it draws; checked.
struct Encoding {
  Encoding(py::handle codes, py::handle scales, const std::string& codec_name, std::ptrdiff_t block_option,
           py::handle key, std::uint64_t first, std::size_t n)
      : codec(codec_named(codec_name)),
        block(checked_block(codec, block_option)),
        to(codes, scales, "codes", "scales", codec, n, block),
        stream(to.codes.size >= kStreamBytes),
        stochastic(!key.is_none()),
        draw(draw_of(codec, key, first)) {
    to.codes.output();
    to.scales.output();
    require_apart(to.codes, to.scales);
  }

  int index() const { return static_cast<int>(codec); }
  const Draw* source() const { return stochastic ? &draw : nullptr; }

  Codec codec;
  std::size_t block;
  Message to;
  bool stream;
  bool stochastic;
  Draw draw;
};

/// Messages of one codec and block for vectors of n elements, and their weights; checked.
struct Messages {
  Messages(const py::sequence& codes, const py::sequence& scales, const py::sequence& weight_numbers,
           std::size_t n, Codec codec, std::size_t block)
      : all_codes(items_of(codes)), all_scales(items_of(scales)), all(all_codes.size()) {
    const std::size_t m = all.size();
    if (all_scales.size() != m || weight_numbers.size() != m) {
      throw py::value_error("codes, scales and weights must be equally many, got " + std::to_string(m) +
                            ", " + std::to_string(all_scales.size()) + " and " +
                            std::to_string(weight_numbers.size()));
    }
    parts.reserve(m);
    for (std::size_t k = 0; k < m; ++k) {
      const Message& part = parts.emplace_back(all_codes[k], all_scales[k], item_name("codes", k),
                                               item_name("scales", k), codec, n, block);
      const double weight = number_of(py::object(weight_numbers[k]), item_name("weights", k));
      all[k] = {part.codes.data, part.scales.data, finite_weight(weight, item_name("weights", k))};
      weights.push_back(weight);
    }
  }

  /// Raises ValueError if one shares memory with one of the arrays.
  template <class... Arrays>
  const Messages& apart(const Arrays&... arrays) const {
    for (const Message& part : parts) part.apart(arrays...);
    return *this;
  }

  std::size_t size() const { return all.size(); }
  const QuantMessage* data() const { return all.data(); }

  py::tuple all_codes;  // keeps the memory alive
  py::tuple all_scales;
  std::vector<Message> parts;
  std::vector<QuantMessage> all;
  std::vector<double> weights;  // not rounded
};

}  // namespace pydec::bindings
