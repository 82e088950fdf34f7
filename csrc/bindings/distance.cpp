#include "pydec/distance.h"

#include <cmath>

#include "bindings/parallel.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Matrices of chunks, computed by threads in any order and added in that of the chunks.
class GramRun {
 public:
  GramRun(const Vectors& vectors, const Shares& shares, const float* centre)
      : n_(vectors.size()),
        centre_(centre),
        shares_(shares),
        from_(shares, vectors.data(), n_),
        work_(shares, n_ * kGramTile),
        wave_(std::clamp(kWaveBytes / (n_ * n_ * sizeof(double)), shares.threads(), shares.size())),
        grams_(wave_ * n_ * n_) {}

  void into(double* gram) {
    py::gil_scoped_release nogil;  // touches no Python object
    std::fill_n(gram, n_ * n_, 0.0);
    for (std::size_t first = 0; first < shares_.size(); first += wave_) {
      const std::size_t count = std::min(wave_, shares_.size() - first);
      shares_.run_some(first, count, [&, kernel = active<DistanceKernels>().gram_f32](const Share& share) {
        kernel(from_(share), n_, centre_ != nullptr ? centre_ + share.first : nullptr, share.count,
               grams_.data() + (share.index - first) * n_ * n_, work_[share.worker]);
      });
      for (std::size_t k = 0; k < count * n_ * n_; ++k) gram[k % (n_ * n_)] += grams_[k];
    }
  }

 private:
  static constexpr std::size_t kWaveBytes = std::size_t{1} << 20;  // of matrices that wait to be added

  std::size_t n_;
  const float* centre_;
  const Shares& shares_;
  ShiftedVectors<const float> from_;
  Rows<double> work_;
  std::size_t wave_;
  std::vector<double> grams_;
};

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
  const Shares shares = Shares::of_length(d, kGramChunk, sizeof(float) * (n + (centre != nullptr ? 1 : 0)));
  GramRun(vectors, shares, centre).into(gram.data);
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
  const Shares shares(out.size, sizeof(float) * (kept + 3), kShareUnit, lead_of(out.data));
  ShiftedVectors<const float> from(shares, vectors.data(), kept);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<DistanceKernels>().add_differences_f32](const Share& share) {
    kernel(from(share), factors.data(), kept, centre.data + share.first, out.data + share.first, share.count);
  });
  return kept;
}

}  // namespace

void bind_distance(Module& m) {
  m.def("gram_f32", gram_f32, py::arg("x"), py::arg("centre").none(true), py::arg("gram"));
  m.def("clip_accumulate_f32", clip_accumulate_f32, py::arg("x"), py::arg("weights"), py::arg("distances"),
        py::arg("radii"), py::arg("centre"), py::arg("out"));
}

}  // namespace pydec::bindings
