#include "pydec/robust.h"

#include <algorithm>
#include <optional>

#include "bindings/states.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Calls kernel(vectors, count, out, elements, stream, largest) on pieces; the largest goes to the first
/// element of the last argument, unless that is None.
template <class T, class Kernel>
void run(const py::sequence& x, const Array<T>& out, const Kernel& kernel, const py::object& largest_object) {
  const Vectors<T> vectors(out, x, "x", out.output().size, "as out has");
  vectors.apart(out, true);
  const std::size_t n = vectors.size();
  // Written past the caches: those hold nothing of the result in the end if the vectors fill them.
  const bool stream = streams_state<T>(out.size * (n + 1) / 2);
  const Shares shares(out.size, sizeof(T) * (n + 1), kShareUnit, lead_of(out.data));
  Pieces<T> pieces(shares, parts_of<T>(vectors.pointers.data(), n, {{out.data, Use::write}}));
  std::optional<Array<double>> largest;
  if (!largest_object.is_none()) {
    largest.emplace(largest_object, "largest");
    largest->output().sized(1, "the largest magnitude");
    vectors.apart(*largest);
    require_apart(out, *largest);
  }
  std::vector<Real<T>> most(shares.threads());
  {
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&](const Share& share) {
      pieces.run(share, [&](Real<T>* const* v, const Share& piece) {
        Real<T> found;
        kernel(v, n, v[n], piece.count, stream, &found);
        most[share.worker] = std::max(most[share.worker], found);
      });
    });
  }
  if (largest) largest->put(0, *std::max_element(most.begin(), most.end()));
}

void require_count(const py::sequence& x) {
  if (x.size() == 0 || x.size() > kMaxRobust) {
    throw py::value_error("x must have 1 to " + std::to_string(kMaxRobust) + " vectors, got " +
                          std::to_string(x.size()));
  }
}

std::size_t checked_f(std::ptrdiff_t f, std::size_t n) {
  if (f < 0 || 2 * static_cast<std::size_t>(f) >= n) {
    throw py::value_error("f must be at least 0 and less than half of the " + std::to_string(n) +
                          " vectors, got " + std::to_string(f));
  }
  return static_cast<std::size_t>(f);
}

void median(const py::sequence& x, py::handle out_object, const py::object& largest) {
  require_count(x);
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const auto& kernels = active<RobustKernels>();
    run(x, out, by_type<T>(kernels.median_f32, kernels.median_f64), largest);
  });
}

void trimmed_mean(const py::sequence& x, std::ptrdiff_t f_option, py::handle out_object,
                  const py::object& largest) {
  require_count(x);
  const std::size_t f = checked_f(f_option, x.size());
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const auto& kernels = active<RobustKernels>();
    run(
        x, out,
        [f, kernel = by_type<T>(kernels.trimmed_mean_f32, kernels.trimmed_mean_f64)](
            auto* from, std::size_t n, auto* to, std::size_t d, bool stream, auto* found) {
          kernel(from, n, f, to, d, stream, found);
        },
        largest);
  });
}

void mean_around_median(const py::sequence& x, std::ptrdiff_t f_option, py::handle out_object,
                        const py::object& largest) {
  require_count(x);
  const std::size_t f = checked_f(f_option, x.size());
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const auto& kernels = active<RobustKernels>();
    run(
        x, out,
        [f, kernel = by_type<T>(kernels.mean_around_median_f32, kernels.mean_around_median_f64)](
            auto* from, std::size_t n, auto* to, std::size_t d, bool stream, auto* found) {
          kernel(from, n, f, to, d, stream, found);
        },
        largest);
  });
}

}  // namespace

void bind_robust(Module& m) {
  m.def("median_f32", median, py::arg("x"), py::arg("out"), py::arg("largest").none(true));
  m.def("trimmed_mean_f32", trimmed_mean, py::arg("x"), py::arg("f"), py::arg("out"),
        py::arg("largest").none(true));
  m.def("mean_around_median_f32", mean_around_median, py::arg("x"), py::arg("f"), py::arg("out"),
        py::arg("largest").none(true));
}

}  // namespace pydec::bindings
