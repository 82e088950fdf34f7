#include "pydec/reduce.h"

#include <cmath>

#include "bindings/parallel.h"
#include "bindings/sums.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

double sum_of_squares(const Array<float>& x) {
  ChunkSums sums(x.size);
  const Shares shares = Shares::of_length(x.size, kSumChunk, sizeof(float));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<ReduceKernels>().sqnorm_f32](const Share& share) {
    if (share.count != 0) *sums.of(share.first) = kernel(x.data + share.first, share.count);
  });
  return sums.total();
}

std::size_t nonfinite_in(const Array<float>& x) {
  const Shares shares(x.size, sizeof(float));
  py::gil_scoped_release nogil;  // touches no Python object
  return shares.count([&, kernel = active<ReduceKernels>().count_nonfinite_f32](const Share& share) {
    return kernel(x.data + share.first, share.count);
  });
}

double sqnorm_f32(py::handle x_object) {
  return sum_of_squares(Array<float>(x_object, "x"));
}

double sqdist_f32(py::handle x_object, py::handle y_object) {
  const Array<float> x(x_object, "x");
  const Array<float> y(y_object, "y");
  y.sized(x.size, "as x has");
  ChunkSums sums(x.size);
  const Shares shares = Shares::of_length(x.size, kSumChunk, 2 * sizeof(float));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<ReduceKernels>().sqdist_f32](const Share& share) {
    if (share.count != 0)
      *sums.of(share.first) = kernel(x.data + share.first, y.data + share.first, share.count);
  });
  return sums.total();
}

void sqdists_f32(const py::sequence& x, py::handle y_object, py::handle out_object) {
  const Array<float> y(y_object, "y");
  const Array<double> out(out_object, "out");
  const Vectors vectors(x, "x", y.size, "as y has");
  out.output().sized(vectors.size(), "one for each vector");
  require_apart(y, out);
  vectors.apart(out);
  const std::size_t m = vectors.size();
  const Shares shares = Shares::of_length(y.size, kSumChunk, sizeof(float) * (m + 1));
  ShiftedVectors<const float> from(shares, vectors.data(), m);
  std::vector<double> sums(shares.size() * m);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<ReduceKernels>().sqdists_f32](const Share& share) {
    kernel(from(share), m, y.data + share.first, share.count, sums.data() + share.index * m);
  });
  for (std::size_t k = 0; k < m; ++k) {
    double total = 0.0;
    for (std::size_t chunk = 0; chunk < shares.size(); ++chunk) total += sums[chunk * m + k];
    out.put(k, total);
  }
}

py::tuple checked_sqnorm_f32(py::handle x_object) {
  const Array<float> x(x_object, "x");
  const double sum = sum_of_squares(x);
  // Squares of finite floats do not overflow a double, nor do 2^64 of them: the sum is the test.
  return py::make_tuple(sum, std::isfinite(sum) ? 0 : nonfinite_in(x));
}

std::size_t count_nonfinite_f32(py::handle x_object) {
  return nonfinite_in(Array<float>(x_object, "x"));
}

}  // namespace

void bind_reduce(Module& m) {
  m.def("sqnorm_f32", sqnorm_f32, py::arg("x"));
  m.def("sqdist_f32", sqdist_f32, py::arg("x"), py::arg("y"));
  m.def("sqdists_f32", sqdists_f32, py::arg("x"), py::arg("y"), py::arg("out"));
  m.def("checked_sqnorm_f32", checked_sqnorm_f32, py::arg("x"));
  m.def("count_nonfinite_f32", count_nonfinite_f32, py::arg("x"));
}

}  // namespace pydec::bindings
