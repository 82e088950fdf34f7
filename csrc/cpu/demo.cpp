#include "pydec/demo.h"

#include "cpu/dct.h"
#include "cpu/select_tile.h"
#include "pydec/cast.h"

namespace pydec {
namespace {

/// Places as bits, lowest first; returns where the next byte goes.
std::uint8_t* pack_places(const std::uint16_t* places, std::size_t k, unsigned width,
                          std::uint8_t* to) noexcept {
  std::uint32_t bits = 0;
  unsigned filled = 0;
  for (std::size_t j = 0; j < k; ++j) {
    bits |= static_cast<std::uint32_t>(places[j]) << filled;
    for (filled += width; filled >= 8; filled -= 8, bits >>= 8) *to++ = static_cast<std::uint8_t>(bits);
  }
  if (filled > 0) *to++ = static_cast<std::uint8_t>(bits);
  return to;
}

/// The bits back; returns what is left in the last byte, which ought to be 0.
std::uint32_t unpack_places(const std::uint8_t* from, std::size_t k, unsigned width,
                            std::uint16_t* places) noexcept {
  std::uint32_t bits = 0;
  unsigned filled = 0;
  const std::uint32_t mask = (1u << width) - 1u;
  for (std::size_t j = 0; j < k; ++j) {
    for (; filled < width; filled += 8) bits |= static_cast<std::uint32_t>(*from++) << filled;
    places[j] = static_cast<std::uint16_t>(bits & mask);
    bits >>= width;
    filled -= width;
  }
  return bits;
}

/// Writes a record; the values become those that it decodes to.
void write_record(const std::uint16_t* places, float* values, const DemoShape& shape,
                  std::uint8_t* to) noexcept {
  switch (shape.values) {
    case DemoValues::int8: {
      std::uint32_t largest = 0;
      for (std::size_t j = 0; j < shape.k; ++j) {
        const std::uint32_t size = magnitude_bits(values[j]);
        largest = size > largest ? size : largest;
      }
      const Int8Rule rule = int8_rule(largest);
      for (std::size_t j = 0; j < shape.k; ++j) {
        std::int8_t code = 0;
        if (rule.kind == Int8Kind::normal) code = int8_code(values[j], rule.inverse);
        if (rule.kind == Int8Kind::tiny) code = int8_code_tiny(values[j], rule.inverse);
        *to++ = static_cast<std::uint8_t>(code);
        values[j] = int8_value(rule.scale, code);
      }
      __builtin_memcpy(to, &rule.scale, sizeof rule.scale);
      to += sizeof rule.scale;
      break;
    }
    case DemoValues::bf16:
      for (std::size_t j = 0; j < shape.k; ++j, to += 2) {
        const std::uint16_t code = bf16_code(values[j]);
        __builtin_memcpy(to, &code, sizeof code);
        values[j] = bf16_value(code);
      }
      break;
    default:
      __builtin_memcpy(to, values, shape.k * sizeof(float));
      to += shape.k * sizeof(float);
  }
  pack_places(places, shape.k, 2 * shape.log_side, to);
}

/// Reads a record to work.indices and work.values; returns whether it is one.
bool read_record(const std::uint8_t* from, const DemoShape& shape, DemoWorkspace& work) noexcept {
  std::uint32_t wrong = 0;
  switch (shape.values) {
    case DemoValues::int8: {
      float scale;
      __builtin_memcpy(&scale, from + shape.k, sizeof scale);
      wrong = bits_of(scale) >= kInfinityBits ? 1 : 0;  // negative ones too
      for (std::size_t j = 0; j < shape.k; ++j) {
        const auto code = static_cast<std::int8_t>(from[j]);
        wrong |= code == -128 ? 1u : 0u;
        work.values[j] = int8_value(scale, code);
      }
      from += shape.k + sizeof scale;
      break;
    }
    case DemoValues::bf16:
      for (std::size_t j = 0; j < shape.k; ++j, from += 2) {
        std::uint16_t code;
        __builtin_memcpy(&code, from, sizeof code);
        work.values[j] = bf16_value(code);
      }
      break;
    default:
      __builtin_memcpy(work.values, from, shape.k * sizeof(float));
      from += shape.k * sizeof(float);
  }
  wrong |= unpack_places(from, shape.k, 2 * shape.log_side, work.indices);
  const std::uint32_t limit = demo_limit(shape.log_side);
  for (std::size_t j = 0; j < shape.k; ++j) wrong |= magnitude_bits(work.values[j]) >= limit ? 1u : 0u;
  for (std::size_t j = 1; j < shape.k; ++j) wrong |= work.indices[j] <= work.indices[j - 1] ? 1u : 0u;
  return wrong == 0;
}

/// a = x (residual null) or a = x + beta * residual, to the tile; returns how many are NaN or infinite.
std::size_t load_tile(const F32* x, const F32* residual, float beta, std::size_t length, std::size_t elements,
                      float* tile) noexcept {
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < length; ++i) {
    const float a = residual != nullptr ? x[i] + beta * residual[i] : x[i];
    tile[i] = a;
    bad += magnitude_bits(a) >= kInfinityBits ? 1u : 0u;
  }
  for (std::size_t i = length; i < elements; ++i) tile[i] = 0.0f;
  return bad;
}

/// residual = a - tile. That a is computed again costs less than to keep it.
void take_out(const F32* x, F32* residual, float beta, std::size_t length, const float* tile) noexcept {
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < length; ++i) {
    const float a = x[i] + beta * residual[i];
    residual[i] = a - tile[i];
  }
}

/// A record of zeros for a tile that cannot be sent; its residual becomes a.
void give_up(const F32* x, F32* residual, float beta, std::size_t length, const DemoShape& shape,
             std::uint8_t* record, DemoWorkspace& work) noexcept {
  for (std::size_t j = 0; j < shape.k; ++j) {
    work.indices[j] = static_cast<std::uint16_t>(j);
    work.values[j] = 0.0f;
  }
  write_record(work.indices, work.values, shape, record);
  if (residual == nullptr) return;
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < length; ++i) residual[i] = x[i] + beta * residual[i];
}

template <std::size_t side>
DemoBad encode(const F32* x, F32* residual, float beta, const DemoShape& shape, std::uint8_t* record,
               DemoWorkspace& work) noexcept {
  constexpr std::size_t kElements = side * side;
  constexpr float kScale = 2.0f / static_cast<float>(side);
  const std::size_t bytes = demo_record(shape.k, shape.log_side, shape.values);
  DemoBad bad{0, 0};
  Guess guess;
  for (std::size_t first = 0; first < shape.n; first += kElements, record += bytes) {
    const std::size_t length = shape.n - first < kElements ? shape.n - first : kElements;
    F32* rest = residual != nullptr ? residual + first : nullptr;
    constexpr std::size_t kTileBytes = kElements * sizeof(float);
    Ahead next{reinterpret_cast<std::uintptr_t>(x + first) + kTileBytes,
               rest != nullptr ? reinterpret_cast<std::uintptr_t>(rest) + kTileBytes : 0};
    const std::size_t nonfinite = load_tile(x + first, rest, beta, length, kElements, work.tile);
    if (nonfinite != 0) {
      bad.nonfinite += nonfinite;
      give_up(x + first, rest, beta, length, shape, record, work);
      continue;
    }
    transform_columns<side>(work.tile, work.spectrum, next);
    transpose<side>(work.spectrum, work.tile, next);
    transform_columns<side>(work.tile, work.spectrum, next);
    select_tile(work.spectrum, kElements, shape.k, work, guess, next);
    bool large = false;
    for (std::size_t j = 0; j < shape.k; ++j) {
      work.values[j] *= kScale;
      large = large || magnitude_bits(work.values[j]) >= demo_limit(shape.log_side);
    }
    if (large) {
      bad.large += 1;
      give_up(x + first, rest, beta, length, shape, record, work);
      continue;
    }
    write_record(work.indices, work.values, shape, record);
    if (rest == nullptr) continue;
    restore_tile<side>(work.indices, work.values, shape.k, work.spectrum, work.tile, next);
    take_out(x + first, rest, beta, length, work.tile);
  }
  return bad;
}

DemoBad encode_f32(const F32* x, F32* residual, float beta, const DemoShape& shape, std::uint8_t* records,
                   DemoWorkspace& workspace) noexcept {
  switch (shape.log_side) {
    case 4:
      return encode<16>(x, residual, beta, shape, records, workspace);
    case 5:
      return encode<32>(x, residual, beta, shape, records, workspace);
    default:
      return encode<64>(x, residual, beta, shape, records, workspace);
  }
}

std::size_t check(const std::uint8_t* records, const DemoShape& shape, DemoWorkspace& work) noexcept {
  const std::size_t bytes = demo_record(shape.k, shape.log_side, shape.values);
  const std::size_t tiles = demo_tiles(shape.n, shape.log_side);
  for (std::size_t tile = 0; tile < tiles; ++tile, records += bytes) {
    if (!read_record(records, shape, work)) return tile;
  }
  return tiles;
}

/// The tile of a record, in work.tile.
void restore(const std::uint8_t* record, const DemoShape& shape, DemoWorkspace& work) noexcept {
  read_record(record, shape, work);
  Ahead nothing{0, 0};
  switch (shape.log_side) {
    case 4:
      return restore_tile<16>(work.indices, work.values, shape.k, work.spectrum, work.tile, nothing);
    case 5:
      return restore_tile<32>(work.indices, work.values, shape.k, work.spectrum, work.tile, nothing);
    default:
      return restore_tile<64>(work.indices, work.values, shape.k, work.spectrum, work.tile, nothing);
  }
}

void decode_f32(const std::uint8_t* records, const DemoShape& shape, F32* out, DemoWorkspace& work) noexcept {
  const std::size_t elements = std::size_t{1} << (2 * shape.log_side);
  const std::size_t bytes = demo_record(shape.k, shape.log_side, shape.values);
  for (std::size_t first = 0; first < shape.n; first += elements, records += bytes) {
    restore(records, shape, work);
    const std::size_t length = shape.n - first < elements ? shape.n - first : elements;
    __builtin_memcpy(out + first, work.tile, length * sizeof(float));
  }
}

void accumulate_f32(const DemoMessage* messages, std::size_t m, const DemoShape& shape, F32* out,
                    DemoWorkspace& work) noexcept {
  const std::size_t elements = std::size_t{1} << (2 * shape.log_side);
  const std::size_t bytes = demo_record(shape.k, shape.log_side, shape.values);
  for (std::size_t first = 0, at = 0; first < shape.n; first += elements, at += bytes) {
    const std::size_t length = shape.n - first < elements ? shape.n - first : elements;
    F32* target = out + first;
    for (std::size_t j = 0; j < m; ++j) {
      restore(messages[j].records + at, shape, work);
      const float weight = messages[j].weight;
      PYDEC_INDEPENDENT
      for (std::size_t i = 0; i < length; ++i) {
        const float term = weight * work.tile[i];
        target[i] = target[i] + term;
      }
    }
  }
}

}  // namespace

template <>
const DemoKernels& table<DemoKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr DemoKernels kernels{
      .encode_f32 = encode_f32, .check = check, .decode_f32 = decode_f32, .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
