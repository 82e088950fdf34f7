#include "pydec/distance.h"

#include <cmath>

#include "bindings/states.h"
#include "bindings/vectors.h"

namespace pydec::bindings {
namespace {

/// Matrices of chunks, computed by threads in any order and added in that of the chunks.
template <class T>
class GramRun {
 public:
  /// `centre` null is the origin.
  GramRun(const Vectors<T>& vectors, const Shares& shares, T* centre)
      : n_(vectors.size()),
        shares_(shares),
        pieces_(shares, parts_of<T>(vectors.pointers.data(), n_, {{centre, Use::read}}), kGramTile),
        work_(shares, n_ * kGramTile),
        wave_(std::clamp(kWaveBytes / (n_ * n_ * sizeof(double)), shares.threads(), shares.size())),
        grams_(wave_ * n_ * n_) {}

  void into(F64* gram) {
    py::gil_scoped_release nogil;  // touches no Python object
    for (std::size_t k = 0; k < n_ * n_; ++k) gram[k] = 0.0;
    const auto& kernels = active<DistanceKernels>();
    const auto kernel = by_type<T>(kernels.gram_f32, kernels.gram_f64);
    for (std::size_t first = 0; first < shares_.size(); first += wave_) {
      const std::size_t count = std::min(wave_, shares_.size() - first);
      std::fill(grams_.begin(), grams_.end(), 0.0);
      shares_.run_some(first, count, [&](const Share& share) {
        double* to = grams_.data() + (share.index - first) * n_ * n_;
        pieces_.run(share, [&](Real<T>* const* v, const Share& piece) {
          kernel(v, n_, v[n_], piece.count, to, work_[piece.worker]);
        });
      });
      for (std::size_t k = 0; k < count * n_ * n_; ++k) gram[k % (n_ * n_)] += grams_[k];
    }
    for (std::size_t i = 0; i < n_; ++i) {
      for (std::size_t j = 0; j < i; ++j) gram[i * n_ + j] = gram[j * n_ + i];
    }
  }

 private:
  static constexpr std::size_t kWaveBytes = std::size_t{1} << 20;  // of matrices that wait to be added

  std::size_t n_;
  const Shares& shares_;
  Pieces<T> pieces_;
  Rows<double> work_;
  std::size_t wave_;
  std::vector<double> grams_;
};

void gram_state(const py::sequence& x, const py::object& centre_object, py::handle gram_object) {
  if (x.size() == 0) throw py::value_error("x must have at least one vector, got none");
  with_state(py::object(x[0]), "x[0]", [&]<class T>(const Array<T>& like) {
    const std::size_t d = like.size;
    const Vectors<T> vectors(like, x, "x", d, "as x[0] has");
    const Array<double> gram(gram_object, "gram");
    const std::size_t n = vectors.size();
    gram.output().sized(n * n, "n * n for n vectors");
    vectors.apart(gram);
    T* centre = nullptr;
    if (!centre_object.is_none()) {
      const Array<T> c = beside(like, centre_object, "centre");
      c.sized(d, "as x[0] has");
      require_apart(c, gram);
      centre = c.data;
    }
    const Shares shares = Shares::of_length(d, kGramChunk, sizeof(T) * (n + (centre != nullptr ? 1 : 0)));
    GramRun<T>(vectors, shares, centre).into(gram.data);
  });
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

template <class T>
std::size_t clip(const Array<T>& out, const py::sequence& x, const py::sequence& weights,
                 const py::sequence& distances, const py::sequence& radii, py::handle centre_object) {
  const Array<T> centre = beside(out, centre_object, "centre");
  centre.sized(out.output().size, "as out has");
  require_apart(centre, out, true);
  Vectors<T> vectors(out, x, "x", out.size, "as out has");
  vectors.apart(out, true);
  const std::size_t m = vectors.size();
  auto factors = weights_of<Real<T>>(weights, m);
  if (distances.size() != m || radii.size() != m) {
    throw py::value_error("distances and radii must be one for each vector, got " +
                          std::to_string(distances.size()) + " and " + std::to_string(radii.size()) +
                          " for " + std::to_string(m) + " vectors");
  }
  std::size_t kept = 0;
  for (std::size_t k = 0; k < m; ++k) {
    const auto distance = number_of(py::object(distances[k]), item_name("distances", k));
    const double part = share(number_of(py::object(radii[k]), item_name("radii", k)), distance, k);
    const auto factor =
        static_cast<Real<T>>(number_of(py::object(weights[k]), item_name("weights", k)) * part);
    if (!std::isfinite(distance)) continue;  // not even 0 * x may touch the sum: x may hold NaN
    vectors.pointers[kept] = vectors.pointers[k];
    factors[kept++] = factor;
  }
  const auto& kernels = active<DistanceKernels>();
  const auto kernel = by_type<T>(kernels.add_differences_f32, kernels.add_differences_f64);
  const Shares shares(out.size, sizeof(T) * (kept + 3), kShareUnit, lead_of(out.data));
  Pieces<T> pieces(shares, parts_of<T>(vectors.pointers.data(), kept,
                                       {{centre.data, Use::read}, {out.data, Use::update}}));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&](const Share& part) {
    pieces.run(part, [&](Real<T>* const* v, const Share& piece) {
      kernel(v, factors.data(), kept, v[kept], v[kept + 1], piece.count);
    });
  });
  return kept;
}

std::size_t clip_accumulate(const py::sequence& x, const py::sequence& weights, const py::sequence& distances,
                            const py::sequence& radii, py::handle centre, py::handle out_object) {
  return with_state(out_object, "out",
                    [&](const auto& out) { return clip(out, x, weights, distances, radii, centre); });
}

}  // namespace

void bind_distance(Module& m) {
  m.def("gram_f32", gram_state, py::arg("x"), py::arg("centre").none(true), py::arg("gram"));
  m.def("clip_accumulate_f32", clip_accumulate, py::arg("x"), py::arg("weights"), py::arg("distances"),
        py::arg("radii"), py::arg("centre"), py::arg("out"));
}

}  // namespace pydec::bindings
