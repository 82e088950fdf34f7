// Four neighbouring elements, which one thread moves at a time: one access of 16 bytes where the address
// allows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/simt.h"

namespace pydec::cuda {

struct Four {
  float v[4];
};

/// Whether all of some arrays, null ones aside, start at a multiple of `bytes`.
template <class... T>
bool aligned_to(std::size_t bytes, const T*... array) {
  return ((reinterpret_cast<std::uintptr_t>(array) % bytes == 0) && ...);
}

namespace {

/// Elements of a vector of n that the four from i on have.
__device__ inline unsigned four_of(std::size_t i, std::size_t n) {
  return i >= n ? 0 : static_cast<unsigned>(n - i < 4 ? n - i : 4);
}

/// from[0..count), zeros after them. `aligned`: the address is a multiple of 16.
__device__ inline Four load_four(const float* from, unsigned count, bool aligned) {
  if (aligned && count == 4) {
    PYDEC_CHECK_ALIGNED(from, 16);
    const float4 all = *reinterpret_cast<const float4*>(from);
    return {{all.x, all.y, all.z, all.w}};
  }
  Four four;
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) four.v[j] = j < count ? from[j] : 0.0f;
  return four;
}

__device__ inline void store_four(const Four& four, float* to, unsigned count, bool aligned) {
  if (aligned && count == 4) {
    PYDEC_CHECK_ALIGNED(to, 16);
    *reinterpret_cast<float4*>(to) = float4{four.v[0], four.v[1], four.v[2], four.v[3]};
    return;
  }
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) {
    if (j < count) to[j] = four.v[j];
  }
}

/// Four bytes as a word, the first one lowest; zeros from `count` on.
__device__ inline std::uint32_t load_bytes(const std::uint8_t* from, unsigned count, bool aligned) {
  if (aligned && count == 4) {
    PYDEC_CHECK_ALIGNED(from, 4);
    return *reinterpret_cast<const std::uint32_t*>(from);
  }
  std::uint32_t word = 0;
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) word |= j < count ? std::uint32_t{from[j]} << (8 * j) : 0u;
  return word;
}

__device__ inline void store_bytes(std::uint32_t word, std::uint8_t* to, unsigned count, bool aligned) {
  if (aligned && count == 4) {
    PYDEC_CHECK_ALIGNED(to, 4);
    *reinterpret_cast<std::uint32_t*>(to) = word;
    return;
  }
#pragma unroll
  for (unsigned j = 0; j < 4; ++j) {
    if (j < count) to[j] = static_cast<std::uint8_t>(word >> (8 * j));
  }
}

}  // namespace
}  // namespace pydec::cuda
