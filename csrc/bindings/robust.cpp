#include "pydec/robust.h"

#include "bindings/states.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Calls kernel(vectors, count, out, elements, stream) on pieces.
template <class T, class Kernel>
void run(const py::sequence& x, const Array<T>& out, const Kernel& kernel) {
  const Vectors<T> vectors(out, x, "x", out.output().size, "as out has");
  vectors.apart(out, true);
  const std::size_t n = vectors.size();
  // Written past the caches: those hold nothing of the result in the end if the vectors fill them.
  const bool stream = streams_state<T>(out.size * (n + 1) / 2);
  const Shares shares(out.size, sizeof(T) * (n + 1), kShareUnit, lead_of(out.data));
  Pieces<T> pieces(shares, parts_of<T>(vectors.pointers.data(), n, {{out.data, Use::write}}));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&](const Share& share) {
    pieces.run(share,
               [&](Real<T>* const* v, const Share& piece) { kernel(v, n, v[n], piece.count, stream); });
  });
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

void median(const py::sequence& x, py::handle out_object) {
  require_count(x);
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const auto& kernels = active<RobustKernels>();
    run(x, out, by_type<T>(kernels.median_f32, kernels.median_f64));
  });
}

void trimmed_mean(const py::sequence& x, std::ptrdiff_t f_option, py::handle out_object) {
  require_count(x);
  const std::size_t f = checked_f(f_option, x.size());
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const auto& kernels = active<RobustKernels>();
    run(x, out,
        [f, kernel = by_type<T>(kernels.trimmed_mean_f32, kernels.trimmed_mean_f64)](
            auto* from, std::size_t n, auto* to, std::size_t d, bool stream) {
          kernel(from, n, f, to, d, stream);
        });
  });
}

void mean_around_median(const py::sequence& x, std::ptrdiff_t f_option, py::handle out_object) {
  require_count(x);
  const std::size_t f = checked_f(f_option, x.size());
  with_state(out_object, "out", [&]<class T>(const Array<T>& out) {
    const auto& kernels = active<RobustKernels>();
    run(x, out,
        [f, kernel = by_type<T>(kernels.mean_around_median_f32, kernels.mean_around_median_f64)](
            auto* from, std::size_t n, auto* to, std::size_t d, bool stream) {
          kernel(from, n, f, to, d, stream);
        });
  });
}

}  // namespace

void bind_robust(Module& m) {
  m.def("median_f32", median, py::arg("x"), py::arg("out"));
  m.def("trimmed_mean_f32", trimmed_mean, py::arg("x"), py::arg("f"), py::arg("out"));
  m.def("mean_around_median_f32", mean_around_median, py::arg("x"), py::arg("f"), py::arg("out"));
}

}  // namespace pydec::bindings
