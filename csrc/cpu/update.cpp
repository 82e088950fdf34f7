#include "pydec/update.h"

#include "cpu/stream.h"
#include "cpu/terms.h"

namespace pydec {
namespace {

/// For every tile of the sum: finish(first, n, sum, result), with result = out + first, or a place whose
/// lines are then written past the caches. They are if `stream` and out is not read here.
template <class Finish>
void for_tiles(const Terms& terms, F32* out, std::size_t n, bool stream, const Finish& finish) noexcept {
  alignas(kLineBytes) float sum[kTile];
  alignas(kLineBytes) float result[kTile];
  const auto tile = [&](std::size_t first, std::size_t length, F32* place) {
    sum_tile(terms.x, terms.w, terms.m, first, length, sum, sum);
    finish(first, length, sum, place);
  };
  for (std::size_t k = 0; k < terms.m; ++k) stream = stream && terms.x[k] != out;
  const std::size_t head = stream ? elements_to_line(out, n) : n;
  std::size_t first = 0;
  if (head < kLineElements) {
    tile(0, head, out);
    for (first = head; first + kTile <= n; first += kTile) {
      tile(first, kTile, result);
      for (std::size_t i = 0; i < kTile; i += kLineElements) stream_line(result + i, out + first + i);
    }
    stream_done();
  }
  for (; first < n; first += kTile) tile(first, n - first < kTile ? n - first : kTile, out + first);
}

void push_sum_f32(const Terms& terms, float divisor, F32* out, F32* ratio, std::size_t n,
                  bool stream) noexcept {
  for_tiles(terms, out, n, stream, [=](std::size_t first, std::size_t length, const float* sum, F32* place) {
    F32* quotient = ratio + first;
    PYDEC_INDEPENDENT
    for (std::size_t i = 0; i < length; ++i) {
      place[i] = sum[i];
      quotient[i] = sum[i] / divisor;
    }
  });
}

void tracking_f32(const Terms& terms, const F32* gradient, F32* previous, F32* out, std::size_t n,
                  bool stream) noexcept {
  for_tiles(terms, out, n, stream, [=](std::size_t first, std::size_t length, const float* sum, F32* place) {
    const F32* g = gradient + first;
    F32* old = previous + first;
    PYDEC_INDEPENDENT
    for (std::size_t i = 0; i < length; ++i) {
      place[i] = (sum[i] + g[i]) - old[i];
      old[i] = g[i];
    }
  });
}

void momentum_f32(const Terms& terms, const F32* gradient, float momentum, float rate, F32* velocity,
                  F32* out, std::size_t n, bool stream) noexcept {
  const float step = -rate;
  for_tiles(terms, out, n, stream, [=](std::size_t first, std::size_t length, const float* sum, F32* place) {
    const F32* g = gradient + first;
    F32* v = velocity + first;
    PYDEC_INDEPENDENT
    for (std::size_t i = 0; i < length; ++i) {
      const float moved = momentum * v[i] + g[i];
      v[i] = moved;
      place[i] = sum[i] + step * moved;
    }
  });
}

}  // namespace

template <>
const UpdateKernels& table<UpdateKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr UpdateKernels kernels{
      .push_sum_f32 = push_sum_f32, .tracking_f32 = tracking_f32, .momentum_f32 = momentum_f32};
  return kernels;
}

}  // namespace pydec
