#include "pydec/robust.h"

#include "bindings/parallel.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

Vectors checked(const py::sequence& x, const Array<float>& out) {
  if (x.size() == 0 || x.size() > kMaxRobust) {
    throw py::value_error("x must have 1 to " + std::to_string(kMaxRobust) + " vectors, got " +
                          std::to_string(x.size()));
  }
  Vectors vectors(x, "x", out.output().size, "as out has");
  vectors.apart(out, true);
  return vectors;
}

/// Whether the result is written past the caches: those hold nothing of it in the end if the vectors fill
/// them.
bool streams_beside(const Vectors& vectors) {
  const std::size_t n = vectors.size();
  return streams(vectors.items[0].size * (n + 1) / 2);
}

/// Calls kernel(vectors, out, elements) on shares.
template <class Kernel>
void run(const Vectors& vectors, const Array<float>& out, const Kernel& kernel) {
  const Shares shares(out.size, sizeof(float) * (vectors.size() + 1), kShareUnit, lead_of(out.data));
  ShiftedVectors<const float> from(shares, vectors.data(), vectors.size());
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&](const Share& share) { kernel(from(share), out.data + share.first, share.count); });
}

std::size_t checked_f(std::ptrdiff_t f, std::size_t n) {
  if (f < 0 || 2 * static_cast<std::size_t>(f) >= n) {
    throw py::value_error("f must be at least 0 and less than half of the " + std::to_string(n) +
                          " vectors, got " + std::to_string(f));
  }
  return static_cast<std::size_t>(f);
}

void median_f32(const py::sequence& x, py::handle out_object) {
  const Array<float> out(out_object, "out");
  const Vectors vectors = checked(x, out);
  run(vectors, out, [&](const float* const* from, float* to, std::size_t d) {
    active<RobustKernels>().median_f32(from, vectors.size(), to, d, streams_beside(vectors));
  });
}

void trimmed_mean_f32(const py::sequence& x, std::ptrdiff_t f_option, py::handle out_object) {
  const Array<float> out(out_object, "out");
  const Vectors vectors = checked(x, out);
  const std::size_t f = checked_f(f_option, vectors.size());
  run(vectors, out, [&](const float* const* from, float* to, std::size_t d) {
    active<RobustKernels>().trimmed_mean_f32(from, vectors.size(), f, to, d, streams_beside(vectors));
  });
}

void mean_around_median_f32(const py::sequence& x, std::ptrdiff_t f_option, py::handle out_object) {
  const Array<float> out(out_object, "out");
  const Vectors vectors = checked(x, out);
  const std::size_t f = checked_f(f_option, vectors.size());
  run(vectors, out, [&](const float* const* from, float* to, std::size_t d) {
    active<RobustKernels>().mean_around_median_f32(from, vectors.size(), f, to, d, streams_beside(vectors));
  });
}

}  // namespace

void bind_robust(Module& m) {
  m.def("median_f32", median_f32, py::arg("x"), py::arg("out"));
  m.def("trimmed_mean_f32", trimmed_mean_f32, py::arg("x"), py::arg("f"), py::arg("out"));
  m.def("mean_around_median_f32", mean_around_median_f32, py::arg("x"), py::arg("f"), py::arg("out"));
}

}  // namespace pydec::bindings
