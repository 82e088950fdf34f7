#include "pydec/reduce.h"

#include <cmath>
#include <utility>

#include "bindings/states.h"
#include "bindings/sums.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Squares of a vector, or of differences, summed by chunks: add(vectors, elements, lanes) adds a piece.
template <class T, class Add>
double sum_of(std::vector<Part<T>> parts, std::size_t n, const Add& add) {
  ChunkSums sums(n);
  const Shares shares = Shares::of_length(n, kSumChunk, parts.size() * sizeof(T));
  Pieces<T> pieces(shares, std::move(parts));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&](const Share& share) {
    if (share.count == 0) return;
    double lane[kSumLanes] = {};
    pieces.run(share, [&](Real<T>* const* v, const Share& piece) { add(v, piece.count, lane); });
    *sums.of(share.first) = sum_of_lanes(lane);
  });
  return sums.total();
}

template <class T>
double sum_of_squares(const Array<T>& x) {
  const auto& kernels = active<ReduceKernels>();
  return sum_of<T>({{x.data, Use::read}}, x.size,
                   [add = by_type<T>(kernels.add_squares_f32, kernels.add_squares_f64)](
                       Real<T>* const* v, std::size_t n, double* lane) { add(v[0], n, lane); });
}

template <class T>
std::size_t nonfinite_in(const Array<T>& x) {
  const Shares shares(x.size, sizeof(T));
  py::gil_scoped_release nogil;  // touches no Python object
  return shares.count([&](const Share& share) {
    if constexpr (kIsHalf<T>) {
      return active<CastKernels>().count_nonfinite[kHalf<T>](codes_of(x.data + share.first), share.count);
    } else {
      const auto& kernels = active<ReduceKernels>();
      const auto kernel = by_type<T>(kernels.count_nonfinite_f32, kernels.count_nonfinite_f64);
      return kernel(x.data + share.first, share.count);
    }
  });
}

double sqnorm(py::handle x_object) {
  return with_state(x_object, "x", [](const auto& x) { return sum_of_squares(x); });
}

double sqdist(py::handle x_object, py::handle y_object) {
  return with_state(x_object, "x", [&]<class T>(const Array<T>& x) {
    const Array<T> y = beside(x, y_object, "y");
    y.sized(x.size, "as x has");
    const auto& kernels = active<ReduceKernels>();
    return sum_of<T>({{x.data, Use::read}, {y.data, Use::read}}, x.size,
                     [add = by_type<T>(kernels.add_differences_f32, kernels.add_differences_f64)](
                         Real<T>* const* v, std::size_t n, double* lane) { add(v[0], v[1], n, lane); });
  });
}

void sqdists(const py::sequence& x, py::handle y_object, py::handle out_object) {
  with_state(y_object, "y", [&]<class T>(const Array<T>& y) {
    const Array<double> out(out_object, "out");
    const Vectors<T> vectors(y, x, "x", y.size, "as y has");
    out.output().sized(vectors.size(), "one for each vector");
    require_apart(y, out);
    vectors.apart(out);
    const std::size_t m = vectors.size();
    const Shares shares = Shares::of_length(y.size, kSumChunk, sizeof(T) * (m + 1));
    Pieces<T> pieces(shares, parts_of<T>(vectors.pointers.data(), m, {{y.data, Use::read}}));
    std::vector<double> sums(shares.size() * m);
    Rows<double> lanes(shares, m * kSumLanes);
    const auto& kernels = active<ReduceKernels>();
    const auto add = by_type<T>(kernels.add_differences_f32, kernels.add_differences_f64);
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&](const Share& share) {
      double* lane = lanes[share.worker];
      std::fill_n(lane, m * kSumLanes, 0.0);
      pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
        for (std::size_t k = 0; k < m; ++k) add(v[k], v[m], piece.count, lane + k * kSumLanes);
      });
      double* sum = sums.data() + share.index * m;
      for (std::size_t k = 0; k < m; ++k) sum[k] = sum_of_lanes(lane + k * kSumLanes);
    });
    for (std::size_t k = 0; k < m; ++k) {
      double total = 0.0;
      for (std::size_t chunk = 0; chunk < shares.size(); ++chunk) total += sums[chunk * m + k];
      out.put(k, total);
    }
  });
}

py::tuple checked_sqnorm(py::handle x_object) {
  return with_state(x_object, "x", [](const auto& x) {
    const double sum = sum_of_squares(x);
    // Squares of finite floats do not overflow a double, nor do 2^64 of them: the sum is the test. Those of
    // doubles may, and then none is counted.
    return py::make_tuple(sum, std::isfinite(sum) ? 0 : nonfinite_in(x));
  });
}

std::size_t count_nonfinite(py::handle x_object) {
  return with_state(x_object, "x", [](const auto& x) { return nonfinite_in(x); });
}

}  // namespace

void bind_reduce(Module& m) {
  m.def("sqnorm_f32", sqnorm, py::arg("x"));
  m.def("sqdist_f32", sqdist, py::arg("x"), py::arg("y"));
  m.def("sqdists_f32", sqdists, py::arg("x"), py::arg("y"), py::arg("out"));
  m.def("checked_sqnorm_f32", checked_sqnorm, py::arg("x"));
  m.def("count_nonfinite_f32", count_nonfinite, py::arg("x"));
}

}  // namespace pydec::bindings
