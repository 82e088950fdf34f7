#include "bindings/cuda_arrays.h"
#include "pydec/cuda.h"
#include "pydec/robust.h"

namespace pydec::bindings {
namespace {

void sqnorm_f32(py::handle x_object, py::handle out_object, py::handle bad_object, py::handle work_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const Device<double> out(place, out_object, "out");
  const Device<double> work(place, work_object, "work");
  out.output().sized(1, "the sum");
  work.output().sized(cuda::sum_work(x.size), "sum_work(n)");
  require_all_apart(x, out, work);
  auto* bad = counter(place, bad_object, "bad");
  place.run("sqnorm_f32", [&](cudaStream_t stream) {
    return cuda::sqnorm_f32(x.data, x.size, out.data, bad, work.data, stream);
  });
}

void sqdists_f32(const py::sequence& x_list, py::handle y_object, py::handle out_object,
                 py::handle work_object) {
  const std::size_t m = x_list.size();
  Place place;
  const Device<float> y(place, y_object, "y");
  const Devices<float> x(place, x_list, "x", m);
  const Device<double> out(place, out_object, "out");
  const Device<double> work(place, work_object, "work");
  x.sized([&y](std::size_t) { return y.size; }, "as y has");
  out.output().sized(m, "one for each vector");
  work.output().sized(m * cuda::sum_work(y.size), "sum_work(n) for each vector");
  require_all_apart(y, out, work);
  for (const Device<float>& item : x.items) require_all_apart(item, out, work);
  place.run("sqdists_f32", [&](cudaStream_t stream) {
    return cuda::sqdists_f32(x.data.data(), m, y.data, y.size, out.data, work.data, stream);
  });
}

void count_nonfinite_f32(py::handle x_object, py::handle bad_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  auto* bad = counter(place, bad_object, "bad");
  place.run("count_nonfinite_f32",
            [&](cudaStream_t stream) { return cuda::count_nonfinite_f32(x.data, x.size, bad, stream); });
}

void gram_f32(const py::sequence& x_list, py::handle centre_object, py::handle gram_object,
              py::handle work_object) {
  const std::size_t n = x_list.size();
  if (n == 0 || n > kMaxRobust) {
    throw py::value_error("gram on CUDA takes 1.." + std::to_string(kMaxRobust) + " vectors, got " +
                          std::to_string(n));
  }
  Place place;
  const Devices<float> x(place, x_list, "x", n);
  const std::size_t d = x.items[0].size;
  x.sized([d](std::size_t) { return d; }, "as x[0] has");
  const Device<double> gram(place, gram_object, "gram");
  const Device<double> work(place, work_object, "work");
  gram.output().sized(n * n, "n * n for n vectors");
  work.output().sized(cuda::gram_work(n, d), "gram_work(n, d)");
  for (const Device<float>& item : x.items) require_all_apart(item, gram, work);
  require_apart(gram, work);
  const float* centre = nullptr;
  if (!centre_object.is_none()) {
    const Device<float> c(place, centre_object, "centre");
    c.sized(d, "as x[0] has");
    require_all_apart(c, gram, work);
    centre = c.data;
  }
  place.run("gram_f32", [&](cudaStream_t stream) {
    return cuda::gram_f32(x.data.data(), n, centre, d, gram.data, work.data, stream);
  });
}

void clip_factors(py::handle sqdist_object, const py::sequence& weights_list, const py::sequence& radii_list,
                  py::handle factors_object) {
  const py::tuple weight_objects = items_of(weights_list);
  const py::tuple radius_objects = items_of(radii_list);
  const std::size_t m = weight_objects.size();
  if (radius_objects.size() != m) {
    throw py::value_error("radii must be one for each weight, got " + std::to_string(radius_objects.size()) +
                          " for " + std::to_string(m));
  }
  std::vector<double> weights(m);
  std::vector<double> radii(m);
  for (std::size_t k = 0; k < m; ++k) {
    weights[k] = number_of(weight_objects[k], item_name("weights", k));
    finite_weight(weights[k], item_name("weights", k));
    radii[k] = number_of(radius_objects[k], item_name("radii", k));
    if (!(radii[k] >= 0.0)) {
      throw py::value_error(item_name("radii", k) + " must not be negative or NaN, got " +
                            std::to_string(radii[k]));
    }
  }
  Place place;
  const Device<double> sqdist(place, sqdist_object, "squared");
  const Device<float> factors(place, factors_object, "factors");
  sqdist.sized(m, "one for each weight");
  factors.output().sized(m, "one for each weight");
  place.run("clip_factors", [&](cudaStream_t stream) {
    return cuda::clip_factors(sqdist.data, weights.data(), radii.data(), m, factors.data, stream);
  });
}

void add_differences_f32(const py::sequence& x_list, py::handle factors_object, py::handle y_object,
                         py::handle out_object) {
  const std::size_t m = x_list.size();
  Place place;
  const Devices<float> x(place, x_list, "x", m);
  const Device<float> factors(place, factors_object, "factors");
  const Device<float> y(place, y_object, "centre");
  const Device<float> out(place, out_object, "out");
  factors.sized(m, "one for each vector");
  y.sized(out.output().size, "as out has");
  x.sized([&out](std::size_t) { return out.size; }, "as out has");
  require_apart(y, out, true);
  require_apart(factors, out);
  for (const Device<float>& item : x.items) require_apart(item, out, true);
  place.run("add_differences_f32", [&](cudaStream_t stream) {
    return cuda::add_differences_f32(x.data.data(), factors.data, true, m, y.data, out.data, out.size,
                                     stream);
  });
}

/// The vectors of a robust rule and its result.
struct Votes {
  Votes(Place& place, const py::sequence& x_list, py::handle out_object)
      : x(place, x_list, "x", x_list.size()), out(place, out_object, "out") {
    if (x.items.empty() || x.items.size() > kMaxRobust) {
      throw py::value_error("x must be 1.." + std::to_string(kMaxRobust) + " vectors, got " +
                            std::to_string(x.items.size()));
    }
    out.output();
    x.sized([this](std::size_t) { return out.size; }, "as out has");
    for (const Device<float>& item : x.items) require_apart(item, out, true);
  }

  std::size_t checked_drop(std::ptrdiff_t f) const {
    if (f < 0 || 2 * static_cast<std::size_t>(f) >= x.items.size()) {
      throw py::value_error("f must be at least 0 and below half of the " + std::to_string(x.items.size()) +
                            " vectors, got " + std::to_string(f));
    }
    return static_cast<std::size_t>(f);
  }

  Devices<float> x;
  Device<float> out;
};

void median_f32(const py::sequence& x, py::handle out) {
  Place place;
  const Votes votes(place, x, out);
  place.run("median_f32", [&](cudaStream_t stream) {
    return cuda::median_f32(votes.x.data.data(), votes.x.data.size(), votes.out.data, votes.out.size, stream);
  });
}

void trimmed_mean_f32(const py::sequence& x, std::ptrdiff_t drop, py::handle out) {
  Place place;
  const Votes votes(place, x, out);
  const std::size_t f = votes.checked_drop(drop);
  place.run("trimmed_mean_f32", [&](cudaStream_t stream) {
    return cuda::trimmed_mean_f32(votes.x.data.data(), votes.x.data.size(), f, votes.out.data, votes.out.size,
                                  stream);
  });
}

void mean_around_median_f32(const py::sequence& x, std::ptrdiff_t drop, py::handle out) {
  Place place;
  const Votes votes(place, x, out);
  const std::size_t f = votes.checked_drop(drop);
  place.run("mean_around_median_f32", [&](cudaStream_t stream) {
    return cuda::mean_around_median_f32(votes.x.data.data(), votes.x.data.size(), f, votes.out.data,
                                        votes.out.size, stream);
  });
}

}  // namespace

void bind_cuda_reduce(py::module_& m) {
  m.def("sum_work", cuda::sum_work, py::arg("n"));
  m.def("sqnorm_f32", sqnorm_f32, py::arg("x"), py::arg("out"), py::arg("bad"), py::arg("work"));
  m.def("sqdists_f32", sqdists_f32, py::arg("x"), py::arg("y"), py::arg("out"), py::arg("work"));
  m.def("count_nonfinite_f32", count_nonfinite_f32, py::arg("x"), py::arg("bad"));
  m.def("gram_work", cuda::gram_work, py::arg("n"), py::arg("d"));
  m.def("gram_f32", gram_f32, py::arg("x"), py::arg("centre"), py::arg("gram"), py::arg("work"));
  m.def("clip_factors", clip_factors, py::arg("squared"), py::arg("weights"), py::arg("radii"),
        py::arg("factors"));
  m.def("add_differences_f32", add_differences_f32, py::arg("x"), py::arg("factors"), py::arg("centre"),
        py::arg("out"));
  m.def("median_f32", median_f32, py::arg("x"), py::arg("out"));
  m.def("trimmed_mean_f32", trimmed_mean_f32, py::arg("x"), py::arg("f"), py::arg("out"));
  m.def("mean_around_median_f32", mean_around_median_f32, py::arg("x"), py::arg("f"), py::arg("out"));
}

}  // namespace pydec::bindings
