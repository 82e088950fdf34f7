// How one warp quantises a block: strips of 128 elements, four neighbours in each lane.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/codes.h"
#include "cuda/four.h"
#include "cuda/grid.h"
#include "pydec/element_quant.h"

namespace pydec::cuda {

constexpr std::size_t kStrip = 128;

namespace {

/// Shared memory of a warp for sums whose order is fixed across its lanes.
template <bool needed>
__device__ float* room_for_sums() {
  if constexpr (!needed) return nullptr;
  using Strips = float[kWarps][kStrip];
  PYDEC_SHARED(Strips, strips);
  return strips[threadIdx.x / kWarp];
}

/// What the scale of a block is made of. All lanes call both functions.
template <Codec codec>
struct Gather {
  std::uint32_t largest = 0;

  __device__ void add(const Four& a, float*) {
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) {
      const std::uint32_t bits = magnitude_bits(a.v[j]);
      largest = bits > largest ? bits : largest;
    }
  }

  __device__ Int8Rule rule(std::size_t, float*) {
#pragma unroll
    for (unsigned step = kWarp / 2; step > 0; step /= 2) {
      const std::uint32_t other = __shfl_xor_sync(kFullWarp, largest, step);
      largest = other > largest ? other : largest;
    }
    return scale_rule(largest, CodecOf<codec>::kTop);
  }
};

/// The mean magnitude: element i belongs to lane i mod 16 of the sum, whose elements are added in order; both
/// halves of the warp hold the same sums. Elements that do not exist are zeros, which change no sum.
template <>
struct Gather<Codec::sign> {
  float sum = 0.0f;

  __device__ void add(const Four& a, float* room) {
    const unsigned lane = threadIdx.x % kWarp;
    __syncwarp();
#pragma unroll
    for (unsigned j = 0; j < 4; ++j) room[lane * 4 + j] = float_of(magnitude_bits(a.v[j]));
    __syncwarp();
#pragma unroll
    for (unsigned i = 0; i < kStrip; i += 16) sum = sum + room[i + lane % 16];
  }

  __device__ Int8Rule rule(std::size_t length, float*) {
#pragma unroll
    for (unsigned half = 8; half > 0; half /= 2) sum = sum + __shfl_down_sync(kFullWarp, sum, half);
    sum = __shfl_sync(kFullWarp, sum, 0);
    if (bits_of(sum) >= kInfinityBits) return {Int8Kind::bad, float_of(kNaNBits), 0.0f};
    return {Int8Kind::normal, sum / static_cast<float>(length), 1.0f};
  }
};

/// The codes of four elements as bytes, zeros where there is no element; `sent` becomes what they stand for.
/// `place` is the first element's in the order of random numbers, a multiple of 4.
template <Codec codec, bool stochastic>
__device__ std::uint32_t code_four(const Four& a, Four& sent, unsigned count, const Int8Rule& rule,
                                   std::uint64_t seed, std::uint64_t place) {
  using C = CodecOf<codec>;
  if (rule.kind == Int8Kind::bad || rule.kind == Int8Kind::zero) return 0;
  constexpr float kUnits = stochastic ? kDrawUnits : 1.0f;
  constexpr std::uint32_t kMask = (1u << C::kBits) - 1u;
  const bool tiny = rule.kind == Int8Kind::tiny;
  const float inverse = tiny ? rule.inverse : rule.inverse * kUnits;
  std::uint64_t state = 0;
  if constexpr (stochastic) state = draw_state(seed, place / 2 / kDrawGroup);
  std::uint32_t word = 0;
  std::uint32_t pair = 0;
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) {
    const float value = a.v[j];
    const float y = tiny ? tiny_units(value, inverse, C::kTop) * kUnits : value * inverse;
    Coded<float> coded;
    if constexpr (stochastic) {
      if (j % 2 == 0) {
        pair = draw_pair(static_cast<std::uint32_t>(state), static_cast<std::uint32_t>(state >> 32),
                         static_cast<std::uint32_t>(place / 2 % kDrawGroup) + j / 2);
      }
      coded = C::stochastic(y, j % 2 == 0 ? pair & 0xffffu : pair >> 16);
    } else {
      coded = C::nearest(y);
    }
    sent.v[j] = rule.scale * coded.level;
    if (j < count) word |= (coded.code & kMask) << (8 * j);
  }
  return word;
}

/// Writes the codes of a block's strip s, of which every lane has four; `codes` are the block's.
template <class C>
__device__ void store_codes(std::uint32_t word, std::size_t s, std::size_t length, std::uint8_t* codes,
                            bool aligned) {
  const unsigned lane = threadIdx.x % kWarp;
  const std::size_t i = s * kStrip + lane * 4;
  if constexpr (C::kBits == 8) {
    store_bytes(word, codes + i, four_of(i, length), aligned);
  } else {
    // Four lanes have a layer of a group; the lanes of the other layers add theirs to them.
    constexpr unsigned kLayers = layers_of(C::kBits);
    const unsigned layer = lane / 4 % kLayers;
    word <<= C::kBits * layer;
#pragma unroll
    for (unsigned step = 4; step < 4 * kLayers; step *= 2) word |= __shfl_xor_sync(kFullWarp, word, step);
    const std::size_t group = i / (16 * kLayers);
    if (layer == 0 && group * 16 * kLayers < length) {
      store_bytes(word, codes + group * 16 + lane % 4 * 4, 4, aligned);
    }
  }
}

}  // namespace
}  // namespace pydec::cuda
