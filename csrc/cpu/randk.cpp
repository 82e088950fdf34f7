#include "pydec/randk.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

constexpr std::size_t kLanes = 128;  // enough to hide the latency of a multiplication on every target

/// One step of every lane's hash; a lane takes every 128th element.
void absorb(const F32* a, std::size_t n, std::uint32_t* lanes, std::uint32_t* bad) noexcept {
  for (std::size_t j = 0; j < n; ++j) {
    const std::uint32_t bits = bits_of(a[j]);
    const std::uint32_t h = (lanes[j] ^ bits) * 0x9e3779b1u;
    lanes[j] = h ^ (h >> 15);
    bad[j] += (bits & kMagnitudeMask) >= kInfinityBits ? 1u : 0u;
  }
}

std::uint64_t key_f32(const F32* x, F32* residual, std::size_t n, std::uint64_t seed,
                      std::size_t& bad) noexcept {
  constexpr std::size_t kSpan = kLanes << 20;  // elements after which the counts of a lane are collected
  std::uint32_t lanes[kLanes];
  for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = static_cast<std::uint32_t>(j);
  bad = 0;
  for (std::size_t start = 0; start < n; start += kSpan) {
    std::uint32_t counts[kLanes] = {};
    const std::size_t end = n - start < kSpan ? n : start + kSpan;
    for (std::size_t i = start; i < end; i += kLanes) {
      const std::size_t length = end - i < kLanes ? end - i : kLanes;
      const F32* a = x + i;
      if (residual != nullptr) {
        F32* sum = residual + i;
        PYDEC_INDEPENDENT
        for (std::size_t j = 0; j < length; ++j) sum[j] = a[j] + sum[j];
        a = sum;
      }
      if (length == kLanes) {
        absorb(a, kLanes, lanes, counts);
      } else {
        absorb(a, length, lanes, counts);
      }
    }
    for (std::size_t j = 0; j < kLanes; ++j) bad += counts[j];
  }
  std::uint64_t key = mixed_bits(seed + 0x9e3779b97f4a7c15u) ^ n;
  for (std::size_t j = 0; j < kLanes; ++j) key = mixed_bits(key + lanes[j]);
  return key;
}

void gather_f32(const F32* x, const RandkShape& shape, bool scaled, F32* values) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  for (std::size_t j = 0; j < shape.k; ++j) {
    std::size_t size = 0;
    const std::size_t first = randk_choice(chunks, shape.k, shape.key, j, size) * shape.chunk;
    const std::size_t length = shape.n - first < shape.chunk ? shape.n - first : shape.chunk;
    const float scale = scaled ? static_cast<float>(size) : 1.0f;
    for (std::size_t i = 0; i < length; ++i) values[i] = x[first + i] * scale;
    values += length;
  }
}

void scatter_f32(const F32* values, const RandkShape& shape, float weight, F32* out) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  for (std::size_t j = 0; j < shape.k; ++j) {
    std::size_t size = 0;
    const std::size_t first = randk_choice(chunks, shape.k, shape.key, j, size) * shape.chunk;
    const std::size_t length = shape.n - first < shape.chunk ? shape.n - first : shape.chunk;
    F32* target = out + first;
    PYDEC_INDEPENDENT
    for (std::size_t i = 0; i < length; ++i) {
      const float term = weight * values[i];
      target[i] = target[i] + term;
    }
    values += length;
  }
}

}  // namespace

template <>
const RandkKernels& table<RandkKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr RandkKernels kernels{
      .key_f32 = key_f32, .gather_f32 = gather_f32, .scatter_f32 = scatter_f32};
  return kernels;
}

}  // namespace pydec
