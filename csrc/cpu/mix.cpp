#include "pydec/mix.h"

#include "cpu/stream.h"
#include "cpu/terms.h"

namespace pydec {
namespace {

template <class Real>
void mix(const Any<Real>* const* x, const Real* w, std::size_t m, Any<Real>* out, std::size_t n,
         bool stream) noexcept {
  constexpr std::size_t kLength = kTile<Real>;
  // `out` may be one of the inputs, so partial sums of a tile wait here until its inputs are read.
  alignas(kLineBytes) Real sum[kLength];
  bool in_place = false;
  for (std::size_t k = 0; k < m; ++k) in_place = in_place || x[k] == out;
  if (in_place || !stream) {
    if (m <= kGroup) return sum_tile<Real>(x, w, m, 0, n, sum, out);
    for (std::size_t first = 0; first < n; first += kLength) {
      sum_tile<Real>(x, w, m, first, n - first < kLength ? n - first : kLength, sum, out + first);
    }
    return;
  }
  const std::size_t head = elements_to_line<Real>(out, n);
  std::size_t first = 0;
  for (; first < head; first += kLength) {
    sum_tile<Real>(x, w, m, first, head - first < kLength ? head - first : kLength, sum, out + first);
  }
  for (first = head; first + kLength <= n; first += kLength) {
    sum_tile<Real>(x, w, m, first, kLength, sum, sum);
    for (std::size_t i = 0; i < kLength; i += kLineOf<Real>) stream_line(sum + i, out + first + i);
  }
  stream_done();
  if (first < n) sum_tile<Real>(x, w, m, first, n - first, sum, out + first);
}

}  // namespace

template <>
const MixKernels& table<MixKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr MixKernels kernels{.mix_f32 = mix<float>, .mix_f64 = mix<double>};
  return kernels;
}

}  // namespace pydec
