#include "pydec/powersgd.h"

#include <vector>

#include "bindings/arrays.h"
#include "bindings/powersgd_shape.h"

namespace pydec::bindings {
namespace {

/// Sums in double of the calling thread, kept from call to call.
PowersgdWorkspace workspace_of(const PowersgdShape& shape) {
  thread_local Room<double> sums;
  const std::size_t left = shape.rank * powersgd_rows(shape.n, shape.columns);
  double* memory = sums.of(left + shape.rank * shape.columns);
  return {memory, memory + left};
}

void start_f32(py::handle x_object, py::handle residual_object, std::uint64_t seed, py::handle start_object) {
  const Array<float> x(x_object, "x");
  const Array<float> start(start_object, "start");
  require_apart(x, start.output());
  const F32* residual = nullptr;
  if (!residual_object.is_none()) {
    const Array<float> read(residual_object, "residual");
    require_apart(read.sized(x.size, "as x has"), start);
    residual = read.data;
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<PowersgdKernels>().start_f32(x.data, residual, x.size, seed, start.size, start.data);
}

std::size_t iterate_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t columns_value,
                        py::handle left_object, py::handle right_object) {
  const Array<float> x(x_object, "x");
  const Array<float> left(left_object, "left");
  const Array<float> right(right_object, "right");
  const std::size_t columns = checked_columns(columns_value);
  const std::size_t rank = checked_rank(x.size, columns, left.output(), right.output());
  require_all_apart(x, left, right);
  F32* residual = residual_of(residual_object, x, left, right);
  const PowersgdShape shape{x.size, columns, rank};
  const PowersgdWorkspace workspace = workspace_of(shape);
  py::gil_scoped_release nogil;  // touches no Python object
  return active<PowersgdKernels>().iterate_f32(x.data, residual, shape, left.data, right.data, workspace);
}

void decode_f32(py::handle left_object, py::handle right_object, std::ptrdiff_t columns_value,
                py::handle out_object) {
  const Array<float> left(left_object, "left");
  const Array<float> right(right_object, "right");
  const Array<float> out(out_object, "out");
  const std::size_t columns = checked_columns(columns_value);
  const std::size_t rank = checked_rank(out.output().size, columns, left, right);
  require_apart(left, out);
  require_apart(right, out);
  py::gil_scoped_release nogil;  // touches no Python object
  active<PowersgdKernels>().decode_f32({left.data, right.data, rank, 1.0f}, out.size, columns, out.data);
}

void accumulate_f32(const py::sequence& left, const py::sequence& right, const py::sequence& weights,
                    std::ptrdiff_t columns_value, py::handle out_object) {
  const std::size_t m = left.size();
  if (right.size() != m || weights.size() != m) {
    throw py::value_error("left, right and weights must be equally many, got " + std::to_string(m) + ", " +
                          std::to_string(right.size()) + " and " + std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  const std::size_t columns = checked_columns(columns_value);
  const py::tuple all_left = items_of(left);
  const py::tuple all_right = items_of(right);
  std::vector<PowersgdMessage> messages(m);
  for (std::size_t k = 0; k < m; ++k) {
    const Array<float> p(all_left[k], item_name("left", k));
    const Array<float> q(all_right[k], item_name("right", k));
    const std::size_t rank = checked_rank(out.output().size, columns, p, q);
    require_apart(p, out);
    require_apart(q, out);
    messages[k] = {p.data, q.data, rank, weight_of(py::object(weights[k]), item_name("weights", k))};
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<PowersgdKernels>().accumulate_f32(messages.data(), m, out.size, columns, out.data);
}

}  // namespace

void bind_powersgd(Module& m) {
  m.def("powersgd_start_f32", start_f32, py::arg("x"), py::arg("residual"), py::arg("seed"),
        py::arg("start"));
  m.def("powersgd_iterate_f32", iterate_f32, py::arg("x"), py::arg("residual"), py::arg("columns"),
        py::arg("left"), py::arg("right"));
  m.def("powersgd_decode_f32", decode_f32, py::arg("left"), py::arg("right"), py::arg("columns"),
        py::arg("out"));
  m.def("powersgd_accumulate_f32", accumulate_f32, py::arg("left"), py::arg("right"), py::arg("weights"),
        py::arg("columns"), py::arg("out"));
}

}  // namespace pydec::bindings
