#include "pydec/robust.h"

#include <utility>

#include "cpu/lanes.h"
#include "cpu/loop.h"
#include "cpu/stream.h"
#include "pydec/network.h"

namespace pydec {
namespace {

// A strip is what is sorted at a time: its rows, at most kMaxRobust of them, fill half of a first-level
// cache.
constexpr std::size_t kStripFloats = 4096;
constexpr std::size_t kWide = 64;    // elements of a strip of up to 64 vectors
constexpr std::size_t kNarrow = 16;  // elements of a strip of more
static_assert(kMaxRobust * kNarrow <= kStripFloats);

template <std::size_t N>
struct Sorter {
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
  [[gnu::always_inline]] static void load(const F32* const* x, std::size_t i, Lanes (&v)[N]) noexcept {
    const Lanes infinity = Lanes{} + __builtin_inff();
    for (std::size_t k = 0; k < N; ++k) v[k] = lower_lanes(load_lanes(x[k] + i), infinity);
    apply(v, std::make_index_sequence<kNetwork.size>());
  }

  /// Median of N rows without a detour through memory; the compiler drops what the middle does not need.
  static void median(const F32* const* x, std::size_t first, std::size_t width, F32* out) noexcept {
    for (std::size_t j = 0; j < width; j += kLanesWidth) {
      Lanes v[N];
      load(x, first + j, v);
      Lanes middle = v[N / 2];
      if constexpr (N % 2 == 0) middle = 0.5f * v[N / 2 - 1] + 0.5f * middle;
      store_lanes(middle + 0.0f, out + j);
    }
  }

  /// rows[k * width + j] = k-th of the N values of element j.
  static void sort(const F32* const* x, std::size_t first, std::size_t width, float* rows) noexcept {
    for (std::size_t j = 0; j < width; j += kLanesWidth) {
      Lanes v[N];
      load(x, first + j, v);
      for (std::size_t k = 0; k < N; ++k) store_lanes(v[k], rows + k * width + j);
    }
  }
};

using SortRows = void (*)(const F32* const*, std::size_t, std::size_t, float*) noexcept;
using MedianRows = void (*)(const F32* const*, std::size_t, std::size_t, F32*) noexcept;

template <std::size_t... N>
constexpr SortRows sort_of(std::size_t n, std::index_sequence<N...>) noexcept {
  constexpr SortRows all[] = {Sorter<N + 1>::sort...};
  return all[n - 1];
}

template <std::size_t... N>
constexpr MedianRows median_of(std::size_t n, std::index_sequence<N...>) noexcept {
  constexpr MedianRows all[] = {Sorter<N + 1>::median...};
  return all[n - 1];
}

using Sizes = std::make_index_sequence<kMaxNetwork>;

/// Sorts the n values of each of `width` elements: networks in registers for up to 16 rows at a time, then
/// Batcher's merges from row to row.
void sort_rows(const F32* const* x, std::size_t n, std::size_t first, std::size_t width,
               float* rows) noexcept {
  for (std::size_t k = 0; k < n; k += kMaxNetwork) {
    const std::size_t group = n - k < kMaxNetwork ? n - k : kMaxNetwork;
    sort_of(group, Sizes())(x + k, first, width, rows + k * width);
  }
  batcher(n, kMaxNetwork, [rows, width](std::size_t low, std::size_t high) {
    float* a = rows + low * width;
    float* b = rows + high * width;
    for (std::size_t j = 0; j < width; j += kLanesWidth) {
      const Lanes p = load_lanes(a + j);
      const Lanes q = load_lanes(b + j);
      store_lanes(lower_lanes(p, q), a + j);
      store_lanes(higher_lanes(p, q), b + j);
    }
  });
}

/// The median of element j from sorted rows.
inline float middle_of(const float* rows, std::size_t n, std::size_t width, std::size_t j) noexcept {
  const float upper = rows[n / 2 * width + j];
  return n % 2 != 0 ? upper : 0.5f * rows[(n / 2 - 1) * width + j] + 0.5f * upper;
}

struct Median {
  void operator()(const float* rows, std::size_t n, std::size_t width, F32* out) const noexcept {
    for (std::size_t j = 0; j < width; ++j) out[j] = middle_of(rows, n, width, j) + 0.0f;
  }
  bool strip(const F32* const* x, std::size_t n, std::size_t first, std::size_t width,
             F32* out) const noexcept {
    if (n > kMaxNetwork) return false;
    median_of(n, Sizes())(x, first, width, out);
    return true;
  }
};

/// sum[j] += rows[k * width + j] for k = from .. to-1, and out = sum / count.
void finish_mean(const float* rows, std::size_t from, std::size_t to, std::size_t width, std::size_t count,
                 const float* sum, F32* out) noexcept {
  const auto divisor = static_cast<float>(count);
  for (std::size_t j = 0; j < width; j += kLanesWidth) {
    Lanes total = load_lanes(sum + j);
    for (std::size_t k = from; k < to; ++k) total += load_lanes(rows + k * width + j);
    store_lanes(total / divisor + 0.0f, out + j);
  }
}

struct TrimmedMean {
  std::size_t f;
  void operator()(const float* rows, std::size_t n, std::size_t width, F32* out) const noexcept {
    finish_mean(rows, f + 1, n - f, width, n - 2 * f, rows + f * width, out);
  }
  static bool strip(const F32* const*, std::size_t, std::size_t, std::size_t, F32*) noexcept { return false; }
};

struct MeanAroundMedian {
  std::size_t f;
  void operator()(const float* rows, std::size_t n, std::size_t width, F32* out) const noexcept {
    const std::size_t m = n - f;
    if (f == 0) return finish_mean(rows, 1, n, width, n, rows, out);
    float centre[kWide];
    float sum[kWide];
    for (std::size_t j = 0; j < width; ++j) {
      centre[j] = middle_of(rows, n, width, j);
      sum[j] = nearer(rows[j], rows[m * width + j], centre[j]);
    }
    for (std::size_t k = 1; k < f; ++k) {
      const float* low = rows + k * width;
      const float* high = low + m * width;
      for (std::size_t j = 0; j < width; ++j) sum[j] += nearer(low[j], high[j], centre[j]);
    }
    finish_mean(rows, f, m, width, m, sum, out);
  }
  static float nearer(float low, float high, float centre) noexcept {
    return centre - low > high - centre ? high : low;
  }
  static bool strip(const F32* const*, std::size_t, std::size_t, std::size_t, F32*) noexcept { return false; }
};

/// Everything a rule needs besides the rule: strips, ragged ends, stores past the caches.
template <class Rule>
struct Run {
  Run(const F32* const* vectors, std::size_t count, Rule what) noexcept : x(vectors), n(count), rule(what) {}

  const F32* const* x;
  std::size_t n;
  Rule rule;
  const F32* staged[kMaxRobust];
  alignas(kLineBytes) float rows[kStripFloats];

  void strip(const F32* const* from, std::size_t first, std::size_t width, F32* out) noexcept {
    if (rule.strip(from, n, first, width, out)) return;
    sort_rows(from, n, first, width, rows);  // may be in place: a group of rows is read before it is written
    rule(rows, n, width, out);
  }

  /// Copies a strip to `rows`; elements from `count` on are 0.
  void stage(std::size_t first, std::size_t count, std::size_t width) noexcept {
    for (std::size_t k = 0; k < n; ++k) {
      float* row = rows + k * width;
      __builtin_memcpy(row, x[k] + first, count * sizeof(float));
      for (std::size_t j = count; j < width; ++j) row[j] = 0.0f;
      staged[k] = row;
    }
  }

  /// `length` elements, fewer than a strip has.
  void ragged(std::size_t first, std::size_t length, F32* out) noexcept {
    for (std::size_t done = 0; done < length; done += kNarrow) {
      const std::size_t count = length - done < kNarrow ? length - done : kNarrow;
      stage(first + done, count, kNarrow);
      float result[kNarrow];
      strip(staged, 0, kNarrow, result);
      for (std::size_t j = 0; j < count; ++j) out[done + j] = result[j];
    }
  }

  void all(F32* out, std::size_t d, bool stream) noexcept {
    const std::size_t width = n * kWide <= kStripFloats ? kWide : kNarrow;
    for (std::size_t k = 0; k < n; ++k) stream = stream && x[k] != out;
    const std::size_t head = stream ? elements_to_line(out, d) : d;
    std::size_t i = 0;
    if (head < kLineElements) {
      ragged(0, head, out);
      alignas(kLineBytes) float result[kWide];
      for (i = head; i + width <= d; i += width) {
        strip(x, i, width, result);
        for (std::size_t j = 0; j < width; j += kLineElements) stream_line(result + j, out + i + j);
      }
      stream_done();
    } else {
      for (; i + width <= d; i += width) strip(x, i, width, out + i);
    }
    ragged(i, d - i, out + i);
  }
};

void median_f32(const F32* const* x, std::size_t n, F32* out, std::size_t d, bool stream) noexcept {
  Run<Median>(x, n, {}).all(out, d, stream);
}

void trimmed_mean_f32(const F32* const* x, std::size_t n, std::size_t f, F32* out, std::size_t d,
                      bool stream) noexcept {
  Run<TrimmedMean>(x, n, {f}).all(out, d, stream);
}

void mean_around_median_f32(const F32* const* x, std::size_t n, std::size_t f, F32* out, std::size_t d,
                            bool stream) noexcept {
  Run<MeanAroundMedian>(x, n, {f}).all(out, d, stream);
}

}  // namespace

template <>
const RobustKernels& table<RobustKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr RobustKernels kernels{.median_f32 = median_f32,
                                         .trimmed_mean_f32 = trimmed_mean_f32,
                                         .mean_around_median_f32 = mean_around_median_f32};
  return kernels;
}

}  // namespace pydec
