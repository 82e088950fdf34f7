#include "pydec/robust.h"

#include <utility>

#include "cpu/lanes.h"
#include "cpu/loop.h"
#include "cpu/stream.h"
#include "pydec/network.h"

namespace pydec {
namespace {

// A strip is what is sorted at a time: its rows, at most kMaxRobust of them, fill half of a first-level
// cache, or of doubles all of it.
constexpr std::size_t kStripElements = 4096;
constexpr std::size_t kWide = 64;    // elements of a strip of up to 64 vectors
constexpr std::size_t kNarrow = 16;  // elements of a strip of more
static_assert(kMaxRobust * kNarrow <= kStripElements);

template <class Real>
using LanesFor = typename LanesOf<Real>::Type;
template <class Real>
constexpr std::size_t kLanesFor = sizeof(LanesFor<Real>) / sizeof(Real);

template <class Real, std::size_t N>
struct Sorter {
  using Lanes = LanesFor<Real>;
  static constexpr Network kNetwork = network_of(N);
  static_assert(network::sorts(kNetwork, N));

  template <std::size_t... I>
  [[gnu::always_inline]] static void apply(Lanes (&v)[N], std::index_sequence<I...>) noexcept {
    (exchange(v[kNetwork.at[I].low], v[kNetwork.at[I].high]), ...);
  }

  [[gnu::always_inline]] static void exchange(Lanes& low, Lanes& high) noexcept {
    const Lanes a = low;
    low = lower_lanes(a, high);
    high = higher_lanes(a, high);
  }

  /// Loads one register of each of N rows, NaN as +infinity, and sorts them.
  /// `most` becomes the largest magnitude so far.
  [[gnu::always_inline]] static void load(const Any<Real>* const* x, std::size_t i, Lanes (&v)[N],
                                          Lanes& most) noexcept {
    const Lanes infinity = Lanes{} + static_cast<Real>(__builtin_inf());
    for (std::size_t k = 0; k < N; ++k) v[k] = lower_lanes(load_lanes(x[k] + i), infinity);
    apply(v, std::make_index_sequence<kNetwork.size>());
    most = higher_lanes(most, higher_lanes(v[N - 1], -v[0]));
  }

  /// Median of N rows without a detour through memory; the compiler drops what the middle does not need.
  static void median(const Any<Real>* const* x, std::size_t first, std::size_t width, Any<Real>* out,
                     Lanes& most) noexcept {
    for (std::size_t j = 0; j < width; j += kLanesFor<Real>) {
      Lanes v[N];
      load(x, first + j, v, most);
      Lanes middle = v[N / 2];
      if constexpr (N % 2 == 0) middle = Real{0.5} * v[N / 2 - 1] + Real{0.5} * middle;
      store_lanes(middle + Real{0}, out + j);
    }
  }

  /// rows[k * width + j] = k-th of the N values of element j.
  static void sort(const Any<Real>* const* x, std::size_t first, std::size_t width, Real* rows,
                   Lanes& most) noexcept {
    for (std::size_t j = 0; j < width; j += kLanesFor<Real>) {
      Lanes v[N];
      load(x, first + j, v, most);
      for (std::size_t k = 0; k < N; ++k) store_lanes(v[k], rows + k * width + j);
    }
  }
};

template <class Real>
using SortRows = void (*)(const Any<Real>* const*, std::size_t, std::size_t, Real*, LanesFor<Real>&) noexcept;
template <class Real>
using MedianRows = void (*)(const Any<Real>* const*, std::size_t, std::size_t, Any<Real>*,
                            LanesFor<Real>&) noexcept;

template <class Real, std::size_t... N>
constexpr SortRows<Real> sort_of(std::size_t n, std::index_sequence<N...>) noexcept {
  constexpr SortRows<Real> all[] = {Sorter<Real, N + 1>::sort...};
  return all[n - 1];
}

template <class Real, std::size_t... N>
constexpr MedianRows<Real> median_of(std::size_t n, std::index_sequence<N...>) noexcept {
  constexpr MedianRows<Real> all[] = {Sorter<Real, N + 1>::median...};
  return all[n - 1];
}

using Sizes = std::make_index_sequence<kMaxNetwork>;

/// Sorts the n values of each of `width` elements: networks in registers for up to 16 rows at a time, then
/// Batcher's merges from row to row.
template <class Real>
void sort_rows(const Any<Real>* const* x, std::size_t n, std::size_t first, std::size_t width, Real* rows,
               LanesFor<Real>& most) noexcept {
  for (std::size_t k = 0; k < n; k += kMaxNetwork) {
    const std::size_t group = n - k < kMaxNetwork ? n - k : kMaxNetwork;
    sort_of<Real>(group, Sizes())(x + k, first, width, rows + k * width, most);
  }
  batcher(n, kMaxNetwork, [rows, width](std::size_t low, std::size_t high) {
    Real* a = rows + low * width;
    Real* b = rows + high * width;
    for (std::size_t j = 0; j < width; j += kLanesFor<Real>) {
      const auto p = load_lanes(a + j);
      const auto q = load_lanes(b + j);
      store_lanes(lower_lanes(p, q), a + j);
      store_lanes(higher_lanes(p, q), b + j);
    }
  });
}

/// The median of element j from sorted rows.
template <class Real>
Real middle_of(const Real* rows, std::size_t n, std::size_t width, std::size_t j) noexcept {
  const Real upper = rows[n / 2 * width + j];
  return n % 2 != 0 ? upper : Real{0.5} * rows[(n / 2 - 1) * width + j] + Real{0.5} * upper;
}

template <class Real>
struct Median {
  void operator()(const Real* rows, std::size_t n, std::size_t width, Any<Real>* out) const noexcept {
    for (std::size_t j = 0; j < width; ++j) out[j] = middle_of<Real>(rows, n, width, j) + Real{0};
  }
  bool strip(const Any<Real>* const* x, std::size_t n, std::size_t first, std::size_t width, Any<Real>* out,
             LanesFor<Real>& most) const noexcept {
    if (n > kMaxNetwork) return false;
    median_of<Real>(n, Sizes())(x, first, width, out, most);
    return true;
  }
};

/// sum[j] += rows[k * width + j] for k = from .. to-1, and out = sum / count.
template <class Real>
void finish_mean(const Real* rows, std::size_t from, std::size_t to, std::size_t width, std::size_t count,
                 const Real* sum, Any<Real>* out) noexcept {
  const auto divisor = static_cast<Real>(count);
  for (std::size_t j = 0; j < width; j += kLanesFor<Real>) {
    auto total = load_lanes(sum + j);
    for (std::size_t k = from; k < to; ++k) total += load_lanes(rows + k * width + j);
    store_lanes(total / divisor + Real{0}, out + j);
  }
}

template <class Real>
struct TrimmedMean {
  std::size_t f;
  void operator()(const Real* rows, std::size_t n, std::size_t width, Any<Real>* out) const noexcept {
    finish_mean<Real>(rows, f + 1, n - f, width, n - 2 * f, rows + f * width, out);
  }
  static bool strip(const Any<Real>* const*, std::size_t, std::size_t, std::size_t, Any<Real>*,
                    LanesFor<Real>&) noexcept {
    return false;
  }
};

template <class Real>
struct MeanAroundMedian {
  std::size_t f;
  void operator()(const Real* rows, std::size_t n, std::size_t width, Any<Real>* out) const noexcept {
    const std::size_t m = n - f;
    if (f == 0) return finish_mean<Real>(rows, 1, n, width, n, rows, out);
    const auto divisor = static_cast<Real>(m);
    for (std::size_t j = 0; j < width; j += kLanesFor<Real>) {
      const auto upper = load_lanes(rows + n / 2 * width + j);
      const auto lower = load_lanes(rows + (n - 1) / 2 * width + j);
      const auto centre = n % 2 != 0 ? upper : Real{0.5} * lower + Real{0.5} * upper;
      auto total = LanesFor<Real>{};
      for (std::size_t k = 0; k < f; ++k) {
        const auto low = load_lanes(rows + k * width + j);
        const auto high = load_lanes(rows + (k + m) * width + j);
        total += centre - low > high - centre ? high : low;
      }
      for (std::size_t k = f; k < m; ++k) total += load_lanes(rows + k * width + j);
      store_lanes(total / divisor + Real{0}, out + j);
    }
  }
  static bool strip(const Any<Real>* const*, std::size_t, std::size_t, std::size_t, Any<Real>*,
                    LanesFor<Real>&) noexcept {
    return false;
  }
};

/// Everything a rule needs besides the rule: strips, ragged ends, stores past the caches.
template <class Real, class Rule>
struct Run {
  Run(const Any<Real>* const* vectors, std::size_t count, Rule what) noexcept
      : x(vectors), n(count), rule(what) {}

  const Any<Real>* const* x;
  std::size_t n;
  Rule rule;
  LanesFor<Real> most{};  ///< largest magnitudes so far
  const Any<Real>* staged[kMaxRobust];
  alignas(kLineBytes) Real rows[kStripElements];

  void strip(const Any<Real>* const* from, std::size_t first, std::size_t width, Any<Real>* out) noexcept {
    if (rule.strip(from, n, first, width, out, most)) return;
    // May be in place: a group of rows is read before it is written.
    sort_rows<Real>(from, n, first, width, rows, most);
    rule(rows, n, width, out);
  }

  /// Copies a strip to `rows`; elements from `count` on are 0.
  void stage(std::size_t first, std::size_t count, std::size_t width) noexcept {
    for (std::size_t k = 0; k < n; ++k) {
      Real* row = rows + k * width;
      __builtin_memcpy(row, x[k] + first, count * sizeof(Real));
      for (std::size_t j = count; j < width; ++j) row[j] = Real{0};
      staged[k] = row;
    }
  }

  /// `length` elements, fewer than a strip has.
  void ragged(std::size_t first, std::size_t length, Any<Real>* out) noexcept {
    for (std::size_t done = 0; done < length; done += kNarrow) {
      const std::size_t count = length - done < kNarrow ? length - done : kNarrow;
      stage(first + done, count, kNarrow);
      Real result[kNarrow];
      strip(staged, 0, kNarrow, result);
      for (std::size_t j = 0; j < count; ++j) out[done + j] = result[j];
    }
  }

  void all(Any<Real>* out, std::size_t d, bool stream) noexcept {
    const std::size_t width = n * kWide <= kStripElements ? kWide : kNarrow;
    for (std::size_t k = 0; k < n; ++k) stream = stream && x[k] != out;
    const std::size_t head = stream ? elements_to_line<Real>(out, d) : d;
    std::size_t i = 0;
    if (head < kLineOf<Real>) {
      ragged(0, head, out);
      alignas(kLineBytes) Real result[kWide];
      for (i = head; i + width <= d; i += width) {
        strip(x, i, width, result);
        for (std::size_t j = 0; j < width; j += kLineOf<Real>) stream_line(result + j, out + i + j);
      }
      stream_done();
    } else {
      for (; i + width <= d; i += width) strip(x, i, width, out + i);
    }
    ragged(i, d - i, out + i);
  }

  Real largest() const noexcept {
    Real found = most[0];
    for (std::size_t j = 1; j < kLanesFor<Real>; ++j) found = most[j] > found ? most[j] : found;
    return found;
  }
};

template <class Real, class Rule>
void average(const Any<Real>* const* x, std::size_t n, Rule rule, Any<Real>* out, std::size_t d, bool stream,
             Any<Real>* largest) noexcept {
  Run<Real, Rule> run(x, n, rule);
  run.all(out, d, stream);
  *largest = run.largest();
}

template <class Real>
void median(const Any<Real>* const* x, std::size_t n, Any<Real>* out, std::size_t d, bool stream,
            Any<Real>* largest) noexcept {
  average<Real, Median<Real>>(x, n, {}, out, d, stream, largest);
}

template <class Real>
void trimmed_mean(const Any<Real>* const* x, std::size_t n, std::size_t f, Any<Real>* out, std::size_t d,
                  bool stream, Any<Real>* largest) noexcept {
  average<Real, TrimmedMean<Real>>(x, n, {f}, out, d, stream, largest);
}

template <class Real>
void mean_around_median(const Any<Real>* const* x, std::size_t n, std::size_t f, Any<Real>* out,
                        std::size_t d, bool stream, Any<Real>* largest) noexcept {
  average<Real, MeanAroundMedian<Real>>(x, n, {f}, out, d, stream, largest);
}

}  // namespace

template <>
const RobustKernels& table<RobustKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr RobustKernels kernels{.median_f32 = median<float>,
                                         .trimmed_mean_f32 = trimmed_mean<float>,
                                         .mean_around_median_f32 = mean_around_median<float>,
                                         .median_f64 = median<double>,
                                         .trimmed_mean_f64 = trimmed_mean<double>,
                                         .mean_around_median_f64 = mean_around_median<double>};
  return kernels;
}

}  // namespace pydec
