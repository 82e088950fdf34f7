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

std::uint64_t digest_f32(const F32* x, F32* residual, std::size_t n, std::uint64_t start,
                         std::size_t& bad) noexcept {
  std::uint32_t lanes[kLanes];
  std::uint32_t counts[kLanes] = {};
  for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = static_cast<std::uint32_t>(j);
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t length = n - i < kLanes ? n - i : kLanes;
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
  std::uint64_t digest = start;
  for (std::size_t j = 0; j < kLanes; ++j) digest = mixed_bits(digest + lanes[j]);
  for (std::size_t j = 0; j < kLanes; ++j) bad += counts[j];
  return digest;
}

void gather_f32(const F32* x, const RandkShape& shape, const RandkStrata& strata, bool scaled,
                F32* values) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  for (std::size_t j = strata.first; j < strata.first + strata.count; ++j) {
    std::size_t size = 0;
    const std::size_t first = randk_choice(chunks, shape.k, shape.key, j, size) * shape.chunk;
    const std::size_t length = shape.n - first < shape.chunk ? shape.n - first : shape.chunk;
    const float scale = scaled ? static_cast<float>(size) : 1.0f;
    for (std::size_t i = 0; i < length; ++i) values[i] = x[first + i] * scale;
    values += length;
  }
}

void scatter_f32(const F32* values, const RandkShape& shape, const RandkStrata& strata, float weight,
                 F32* out) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  for (std::size_t j = strata.first; j < strata.first + strata.count; ++j) {
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
      .digest_f32 = digest_f32, .gather_f32 = gather_f32, .scatter_f32 = scatter_f32};
  return kernels;
}

}  // namespace pydec
