#include "pydec/mix.h"

#include "cpu/stream.h"
#include "cpu/terms.h"

namespace pydec {
namespace {

void mix_f32(const F32* const* x, const float* w, std::size_t m, F32* out, std::size_t n,
             bool stream) noexcept {
  // `out` may be one of the inputs, so partial sums of a tile wait here until its inputs are read.
  alignas(kLineBytes) float sum[kTile];
  bool in_place = false;
  for (std::size_t k = 0; k < m; ++k) in_place = in_place || x[k] == out;
  if (in_place || !stream) {
    if (m <= kGroup) return sum_tile(x, w, m, 0, n, sum, out);
    for (std::size_t first = 0; first < n; first += kTile) {
      sum_tile(x, w, m, first, n - first < kTile ? n - first : kTile, sum, out + first);
    }
    return;
  }
  const std::size_t head = elements_to_line(out, n);
  std::size_t first = 0;
  for (; first < head; first += kTile) {
    sum_tile(x, w, m, first, head - first < kTile ? head - first : kTile, sum, out + first);
  }
  for (first = head; first + kTile <= n; first += kTile) {
    sum_tile(x, w, m, first, kTile, sum, sum);
    for (std::size_t i = 0; i < kTile; i += kLineElements) stream_line(sum + i, out + first + i);
  }
  stream_done();
  if (first < n) sum_tile(x, w, m, first, n - first, sum, out + first);
}

}  // namespace

template <>
const MixKernels& table<MixKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr MixKernels kernels{.mix_f32 = mix_f32};
  return kernels;
}

}  // namespace pydec
