#include "pydec/distance.h"

#include <cmath>

#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

void gram_f32(const py::sequence& x, const py::object& centre_object, py::handle gram_object) {
  if (x.size() == 0) throw py::value_error("x must have at least one vector, got none");
  const std::size_t d = Array<float>(py::object(x[0]), "x[0]").size;
  const Vectors vectors(x, "x", d, "as x[0] has");
  const Array<double> gram(gram_object, "gram");
  const std::size_t n = vectors.size();
  gram.output().sized(n * n, "n * n for n vectors");
  vectors.apart(gram);
  const float* centre = nullptr;
  if (!centre_object.is_none()) {
    const Array<float> c(centre_object, "centre");
    c.sized(d, "as x[0] has");
    require_apart(c, gram);
    centre = c.data;
  }
  std::vector<double> work(n * kGramTile);
  py::gil_scoped_release nogil;  // touches no Python object
  active<DistanceKernels>().gram_f32(vectors.data(), n, centre, d, gram.data, work.data());
}

/// min(1, radius / distance), or 0 if the distance is not finite.
double share(double radius, double distance, std::size_t k) {
  if (!(radius >= 0.0)) {
    throw py::value_error(item_name("radii", k) + " must not be negative or NaN, got " +
                          std::to_string(radius));
  }
  if (distance < 0.0) {
    throw py::value_error(item_name("distances", k) + " must not be negative, got " +
                          std::to_string(distance));
  }
  if (!std::isfinite(distance)) return 0.0;
  return distance > radius ? radius / distance : 1.0;
}

std::size_t clip_accumulate_f32(const py::sequence& x, const py::sequence& weights,
                                const py::sequence& distances, const py::sequence& radii,
                                py::handle centre_object, py::handle out_object) {
  const Array<float> out(out_object, "out");
  const Array<float> centre(centre_object, "centre");
  centre.sized(out.output().size, "as out has");
  require_apart(centre, out, true);
  Vectors vectors(x, "x", out.size, "as out has");
  vectors.apart(out, true);
  const std::size_t m = vectors.size();
  std::vector<float> factors = weights_of(weights, m);
  if (distances.size() != m || radii.size() != m) {
    throw py::value_error("distances and radii must be one for each vector, got " +
                          std::to_string(distances.size()) + " and " + std::to_string(radii.size()) +
                          " for " + std::to_string(m) + " vectors");
  }
  std::size_t kept = 0;
  for (std::size_t k = 0; k < m; ++k) {
    const auto distance = number_of(py::object(distances[k]), item_name("distances", k));
    const double part = share(number_of(py::object(radii[k]), item_name("radii", k)), distance, k);
    const auto factor = static_cast<float>(number_of(py::object(weights[k]), item_name("weights", k)) * part);
    if (!std::isfinite(distance)) continue;  // not even 0 * x may touch the sum: x may hold NaN
    vectors.pointers[kept] = vectors.pointers[k];
    factors[kept++] = factor;
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<DistanceKernels>().add_differences_f32(vectors.data(), factors.data(), kept, centre.data, out.data,
                                                out.size);
  return kept;
}

}  // namespace

void bind_distance(py::module_& m) {
  m.def("gram_f32", gram_f32, py::arg("x"), py::arg("centre").none(true), py::arg("gram"));
  m.def("clip_accumulate_f32", clip_accumulate_f32, py::arg("x"), py::arg("weights"), py::arg("distances"),
        py::arg("radii"), py::arg("centre"), py::arg("out"));
}

}  // namespace pydec::bindings
