// A DeMo tile in shared memory: transforms, records and restoration by one block of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/select.h"
#include "pydec/cast.h"
#include "pydec/demo.h"
#include "pydec/element_dct.h"

namespace pydec::cuda {

/// once[i] = cos(i pi / 2 side), of which every cosine of the inverse transform is one.
template <unsigned side>
struct Cosines {
  float once[4 * side];
};

template <unsigned side>
constexpr Cosines<side> make_cosines() {
  Cosines<side> result = {};
  for (std::size_t i = 0; i < 4 * side; ++i) result.once[i] = cosine(i, 2 * side);
  return result;
}

/// What a block of threads works on. Rows of the tile are one element apart more than they are long, so that
/// neither rows nor columns collide in the memory's banks.
template <unsigned side>
struct DemoRoom {
  static constexpr unsigned kElements = side * side;
  static constexpr unsigned kStride = side + 1;

  float tile[side * kStride];
  float values[kElements];
  std::uint16_t places[kElements];
  float once[4 * side];
  unsigned flag;
  unsigned largest;
  BlockSelect select;
};

namespace {

/// Place in the tile of element i, row after row.
template <unsigned side>
__device__ inline unsigned at_row(std::size_t i) {
  return static_cast<unsigned>(i / side * (side + 1) + i % side);
}

/// Place of coefficient v * side + u, which lies in row u.
template <unsigned side>
__device__ inline unsigned at_column(std::size_t place) {
  return static_cast<unsigned>(place % side * (side + 1) + place / side);
}

/// As transform_columns of csrc/cpu/dct.h on every line of a tile, in place: element i of a line is
/// tile[line * apart + i * step]. The even and the odd coefficients of a line have a thread each: II and IV
/// of half as many points. All threads call it.
template <unsigned side>
__device__ void transform_lines(float* tile, unsigned apart, unsigned step) {
  constexpr unsigned kHalf = side / 2;
  const unsigned part = threadIdx.x / side;
  float* line = tile + threadIdx.x % side * apart;
  float x[kHalf];
  if (part < 2) {
#pragma unroll
    for (unsigned i = 0; i < kHalf; ++i) {
      const float a = line[i * step];
      const float b = line[(side - 1 - i) * step];
      x[i] = part == 0 ? a + b : a - b;
    }
  }
  __syncthreads();
  if (part == 0) {
    Dct<kHalf, float>::second(x);
    x[0] = x[0] * kRootHalf;
  } else if (part == 1) {
    Dct<kHalf, float>::fourth(x);
  }
  if (part < 2) {
#pragma unroll
    for (unsigned i = 0; i < kHalf; ++i) line[(2 * i + part) * step] = x[i];
  }
  __syncthreads();
}

/// As restore_columns: III along every column, in place.
template <unsigned side>
__device__ void restore_columns(float* tile) {
  constexpr unsigned kHalf = side / 2;
  constexpr unsigned kQuarter = side / 4;
  constexpr unsigned kStride = side + 1;
  const unsigned part = threadIdx.x / side;
  float* column = tile + threadIdx.x % side;
  float x[kHalf];
  if (part < 2) {
#pragma unroll
    for (unsigned i = 0; i < kHalf; ++i) x[i] = column[(2 * i + part) * kStride];
  }
  __syncthreads();
  if (part == 0) {
    Dct<kHalf, float>::third(x);
  } else if (part == 1) {
    Dct<kHalf, float>::fourth(x);
  }
  if (part < 2) {
#pragma unroll
    for (unsigned i = 0; i < kHalf; ++i) column[(part * kHalf + i) * kStride] = x[i];
  }
  __syncthreads();
  if (part < 2) {
#pragma unroll
    for (unsigned i = 0; i < kQuarter; ++i) {
      const unsigned row = part * kQuarter + i;
      const float even = column[row * kStride];
      const float odd = column[(kHalf + row) * kStride];
      x[i] = even + odd;
      x[kQuarter + i] = even - odd;
    }
  }
  __syncthreads();
  if (part < 2) {
#pragma unroll
    for (unsigned i = 0; i < kQuarter; ++i) {
      const unsigned row = part * kQuarter + i;
      column[row * kStride] = x[i];
      column[(side - 1 - row) * kStride] = x[kQuarter + i];
    }
  }
  __syncthreads();
}

/// The tile of the coefficients in room.places and room.values. All threads call it; it begins and ends with
/// a barrier.
template <unsigned side>
__device__ void restore_tile(DemoRoom<side>& room, std::size_t k) {
  constexpr float kScale = 2.0f / static_cast<float>(side);
  constexpr unsigned kGroups = kThreads / side;  // of threads with a column each
  __syncthreads();
  for (unsigned i = threadIdx.x; i < side * DemoRoom<side>::kStride; i += kThreads) room.tile[i] = 0.0f;
  __syncthreads();
  const unsigned c = threadIdx.x % side;
  for (std::size_t j = 0; j < k; ++j) {
    const unsigned u = room.places[j] % side;
    const unsigned v = room.places[j] / side;
    if (u % kGroups != threadIdx.x / side) continue;
    float y = room.values[j] * kScale;
    y = u == 0 ? y * kRootHalf : y;
    y = v == 0 ? y * kRootHalf : y;
    float& sum = room.tile[u * DemoRoom<side>::kStride + c];
    const float term = y * room.once[(2 * c + 1) * v % (4 * side)];
    sum = sum + term;
  }
  __syncthreads();
  restore_columns<side>(room.tile);
}

__device__ inline unsigned byte_of(float value, unsigned byte) {
  return bits_of(value) >> (8 * byte) & 0xffu;
}

/// A float of a record, which starts anywhere.
__device__ inline float float_at(const std::uint8_t* from) {
  std::uint32_t bits = 0;
  for (unsigned b = 0; b < 4; ++b) bits |= std::uint32_t{from[b]} << (8 * b);
  return float_of(bits);
}

__device__ inline void put_float(float value, std::uint8_t* to) {
  for (unsigned b = 0; b < 4; ++b) to[b] = static_cast<std::uint8_t>(byte_of(value, b));
}

/// Writes the record of room.places and room.values, which become those that it decodes to. The largest
/// magnitude of the values is known for int8. All threads call it.
template <unsigned side>
__device__ void write_record(DemoRoom<side>& room, std::uint32_t largest, const DemoShape& shape,
                             std::uint8_t* to) {
  const std::size_t k = shape.k;
  switch (shape.values) {
    case DemoValues::int8: {
      const Int8Rule rule = int8_rule(largest);
      for (std::size_t j = threadIdx.x; j < k; j += kThreads) {
        std::int8_t code = 0;
        if (rule.kind == Int8Kind::normal) code = int8_code(room.values[j], rule.inverse);
        if (rule.kind == Int8Kind::tiny) code = int8_code_tiny(room.values[j], rule.inverse);
        to[j] = static_cast<std::uint8_t>(code);
        room.values[j] = int8_value(rule.scale, code);
      }
      if (threadIdx.x == 0) put_float(rule.scale, to + k);
      to += k + sizeof rule.scale;
      break;
    }
    case DemoValues::bf16:
      for (std::size_t j = threadIdx.x; j < k; j += kThreads) {
        const std::uint16_t code = bf16_code(room.values[j]);
        to[2 * j] = static_cast<std::uint8_t>(code & 0xffu);
        to[2 * j + 1] = static_cast<std::uint8_t>(code >> 8);
        room.values[j] = bf16_value(code);
      }
      to += 2 * k;
      break;
    default:
      for (std::size_t j = threadIdx.x; j < k; j += kThreads) put_float(room.values[j], to + 4 * j);
      to += 4 * k;
  }
  // A byte holds bits of at most two places, which have at least 8 bits each.
  const unsigned width = 2 * shape.log_side;
  for (std::size_t at = threadIdx.x; at < (k * width + 7) / 8; at += kThreads) {
    const std::size_t j = 8 * at / width;
    const auto past = static_cast<unsigned>(8 * at % width);
    unsigned bits = unsigned{room.places[j]} >> past;
    if (j + 1 < k) bits |= unsigned{room.places[j + 1]} << (width - past);
    to[at] = static_cast<std::uint8_t>(bits & 0xffu);
  }
}

/// The values and places of a record, one by one.
struct RecordReader {
  const std::uint8_t* record;
  const std::uint8_t* packed;
  std::size_t bytes;  ///< of the places
  std::size_t k;
  unsigned width;
  DemoValues kind;
  float scale;  ///< of int8

  __device__ RecordReader(const std::uint8_t* from, const DemoShape& shape)
      : record(from), k(shape.k), width(2 * shape.log_side), kind(shape.values), scale(0.0f) {
    bytes = (k * width + 7) / 8;
    packed = from + demo_record(k, shape.log_side, kind) - bytes;
    if (kind == DemoValues::int8) scale = float_at(from + k);
  }

  __device__ float value(std::size_t j) const {
    if (kind == DemoValues::int8) return int8_value(scale, static_cast<std::int8_t>(record[j]));
    if (kind == DemoValues::float32) return float_at(record + 4 * j);
    return bf16_value(static_cast<std::uint16_t>(record[2 * j] | record[2 * j + 1] << 8));
  }

  __device__ std::uint16_t place(std::size_t j) const {
    const std::size_t at = j * width / 8;
    std::uint32_t bits = 0;
    for (unsigned b = 0; b < 3; ++b) {
      if (at + b < bytes) bits |= std::uint32_t{packed[at + b]} << (8 * b);
    }
    return static_cast<std::uint16_t>(bits >> (j * width % 8) & ((1u << width) - 1u));
  }

  /// Whether entry j, or what is checked once, with the first, is at fault.
  __device__ bool is_wrong(std::size_t j, std::uint32_t limit) const {
    bool wrong = magnitude_bits(value(j)) >= limit || (j > 0 && place(j) <= place(j - 1));
    if (kind == DemoValues::int8) wrong = wrong || record[j] == 0x80;
    if (j > 0) return wrong;
    if (kind == DemoValues::int8) wrong = wrong || bits_of(scale) >= kInfinityBits;  // negative ones too
    const auto rest = static_cast<unsigned>(k * width % 8);
    return wrong || (rest != 0 && packed[bytes - 1] >> rest != 0);
  }
};

}  // namespace
}  // namespace pydec::cuda
