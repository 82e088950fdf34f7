#include "bindings/cuda_arrays.h"
#include "bindings/powersgd_shape.h"
#include "pydec/cuda.h"

namespace pydec::bindings {
namespace {

void powersgd_start_f32(py::handle x_object, py::handle residual_object, std::uint64_t seed,
                        py::handle start_object, py::handle key_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const Device<float> start(place, start_object, "start");
  require_apart(x, start.output());
  const float* residual = nullptr;
  if (!residual_object.is_none()) {
    const Device<float> read(place, residual_object, "residual");
    require_apart(read.sized(x.size, "as x has"), start);
    residual = read.data;
  }
  auto* key = needed_counter(place, key_object, "key");
  place.run("powersgd_start_f32", [&](cudaStream_t stream) {
    return cuda::powersgd_start_f32(x.data, residual, x.size, seed, start.size, start.data, key, stream);
  });
}

std::size_t powersgd_work(std::size_t n, std::ptrdiff_t columns, std::ptrdiff_t rank) {
  return cuda::powersgd_work({n, checked_columns(columns), checked_option(rank, 0, kMaxRank, "rank")});
}

void powersgd_iterate_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t columns_value,
                          py::handle left_object, py::handle right_object, const py::object& bad_object,
                          py::handle work_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const Device<float> left(place, left_object, "left");
  const Device<float> right(place, right_object, "right");
  const std::size_t columns = checked_columns(columns_value);
  const PowersgdShape shape{x.size, columns, checked_rank(x.size, columns, left, right)};
  left.output();
  right.output();
  const Device<double> work(place, work_object, "work");
  work.output().sized(cuda::powersgd_work(shape), "powersgd_work(n, columns, rank)");
  require_all_apart(x, left, right);
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  auto* bad = counter(place, bad_object, "bad");
  place.run("powersgd_iterate_f32", [&](cudaStream_t stream) {
    return cuda::powersgd_iterate_f32(x.data, residual, shape, left.data, right.data, bad, work.data, stream);
  });
}

void powersgd_decode_f32(py::handle left_object, py::handle right_object, std::ptrdiff_t columns_value,
                         py::handle out_object) {
  Place place;
  const Device<float> left(place, left_object, "left");
  const Device<float> right(place, right_object, "right");
  const Device<float> out(place, out_object, "out");
  const std::size_t columns = checked_columns(columns_value);
  const std::size_t rank = checked_rank(out.output().size, columns, left, right);
  require_apart(left, out);
  require_apart(right, out);
  place.run("powersgd_decode_f32", [&](cudaStream_t stream) {
    return cuda::powersgd_decode_f32({left.data, right.data, rank, 1.0f}, out.size, columns, out.data,
                                     stream);
  });
}

void powersgd_accumulate_f32(const py::sequence& left_list, const py::sequence& right_list,
                             const py::sequence& weight_values, std::ptrdiff_t columns_value,
                             py::handle out_object) {
  const std::vector<float> weights = finite_weights(weight_values);
  const std::size_t m = weights.size();
  Place place;
  const Device<float> out(place, out_object, "out");
  const std::size_t columns = checked_columns(columns_value);
  const Devices<float> left(place, left_list, "left", m);
  const Devices<float> right(place, right_list, "right", m);
  out.output();
  std::vector<PowersgdMessage> messages(m);
  for (std::size_t k = 0; k < m; ++k) {
    const std::size_t rank = checked_rank(out.size, columns, left.items[k], right.items[k]);
    require_apart(left.items[k], out);
    require_apart(right.items[k], out);
    messages[k] = {left.data[k], right.data[k], rank, weights[k]};
  }
  place.run("powersgd_accumulate_f32", [&](cudaStream_t stream) {
    return cuda::powersgd_accumulate_f32(messages.data(), m, out.size, columns, out.data, stream);
  });
}

}  // namespace

void bind_cuda_powersgd(py::module_& m) {
  m.def("powersgd_start_f32", powersgd_start_f32, py::arg("x"), py::arg("residual"), py::arg("seed"),
        py::arg("start"), py::arg("key"));
  m.def("powersgd_work", powersgd_work, py::arg("n"), py::arg("columns"), py::arg("rank"));
  m.def("powersgd_iterate_f32", powersgd_iterate_f32, py::arg("x"), py::arg("residual"), py::arg("columns"),
        py::arg("left"), py::arg("right"), py::arg("bad"), py::arg("work"));
  m.def("powersgd_decode_f32", powersgd_decode_f32, py::arg("left"), py::arg("right"), py::arg("columns"),
        py::arg("out"));
  m.def("powersgd_accumulate_f32", powersgd_accumulate_f32, py::arg("left"), py::arg("right"),
        py::arg("weights"), py::arg("columns"), py::arg("out"));
}

}  // namespace pydec::bindings
