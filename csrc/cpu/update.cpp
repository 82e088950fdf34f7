#include "pydec/update.h"

#include "cpu/stream.h"
#include "cpu/terms.h"

namespace pydec {
namespace {

/// For every tile of the sum: finish(first, n, sum, result), with result = out + first, or a place whose
/// lines are then written past the caches. They are if `stream` and out is not read here.
template <class Real, class Finish>
void for_tiles(const TermsOf<Real>& terms, Any<Real>* out, std::size_t n, bool stream,
               const Finish& finish) noexcept {
  constexpr std::size_t kLength = kTile<Real>;
  alignas(kLineBytes) Real sum[kLength];
  alignas(kLineBytes) Real result[kLength];
  const auto tile = [&](std::size_t first, std::size_t length, Any<Real>* place) {
    sum_tile<Real>(terms.x, terms.w, terms.m, first, length, sum, sum);
    finish(first, length, sum, place);
  };
  for (std::size_t k = 0; k < terms.m; ++k) stream = stream && terms.x[k] != out;
  const std::size_t head = stream ? elements_to_line<Real>(out, n) : n;
  std::size_t first = 0;
  if (head < kLineOf<Real>) {
    tile(0, head, out);
    for (first = head; first + kLength <= n; first += kLength) {
      tile(first, kLength, result);
      for (std::size_t i = 0; i < kLength; i += kLineOf<Real>) stream_line(result + i, out + first + i);
    }
    stream_done();
  }
  for (; first < n; first += kLength) tile(first, n - first < kLength ? n - first : kLength, out + first);
}

template <class Real>
void push_sum(const TermsOf<Real>& terms, Real divisor, Any<Real>* out, Any<Real>* ratio, std::size_t n,
              bool stream) noexcept {
  for_tiles<Real>(terms, out, n, stream,
                  [=](std::size_t first, std::size_t length, const Real* sum, Any<Real>* place) {
                    Any<Real>* quotient = ratio + first;
                    PYDEC_INDEPENDENT
                    for (std::size_t i = 0; i < length; ++i) {
                      place[i] = sum[i];
                      quotient[i] = sum[i] / divisor;
                    }
                  });
}

template <class Real>
void tracking(const TermsOf<Real>& terms, const Any<Real>* gradient, Any<Real>* previous, Any<Real>* out,
              std::size_t n, bool stream) noexcept {
  for_tiles<Real>(terms, out, n, stream,
                  [=](std::size_t first, std::size_t length, const Real* sum, Any<Real>* place) {
                    const Any<Real>* g = gradient + first;
                    Any<Real>* old = previous + first;
                    PYDEC_INDEPENDENT
                    for (std::size_t i = 0; i < length; ++i) {
                      place[i] = (sum[i] + g[i]) - old[i];
                      old[i] = g[i];
                    }
                  });
}

template <class Real>
void momentum(const TermsOf<Real>& terms, const Any<Real>* gradient, Real momentum, Real rate,
              Any<Real>* velocity, Any<Real>* out, std::size_t n, bool stream) noexcept {
  const Real step = -rate;
  for_tiles<Real>(terms, out, n, stream,
                  [=](std::size_t first, std::size_t length, const Real* sum, Any<Real>* place) {
                    const Any<Real>* g = gradient + first;
                    Any<Real>* v = velocity + first;
                    PYDEC_INDEPENDENT
                    for (std::size_t i = 0; i < length; ++i) {
                      const Real moved = momentum * v[i] + g[i];
                      v[i] = moved;
                      place[i] = sum[i] + step * moved;
                    }
                  });
}

}  // namespace

template <>
const UpdateKernels& table<UpdateKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr UpdateKernels kernels{.push_sum_f32 = push_sum<float>,
                                         .tracking_f32 = tracking<float>,
                                         .momentum_f32 = momentum<float>,
                                         .push_sum_f64 = push_sum<double>,
                                         .tracking_f64 = tracking<double>,
                                         .momentum_f64 = momentum<double>};
  return kernels;
}

}  // namespace pydec
