#include "pydec/topk.h"

#include <limits>
#include <memory>

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

/// Candidates of the calling thread; grows to the largest call and stays, so that calls allocate nothing.
TopkWorkspace workspace_of(std::size_t size) {
  thread_local std::unique_ptr<std::uint32_t[]> indices;
  thread_local std::unique_ptr<float[]> values;
  thread_local std::size_t room = 0;
  if (size > room) {
    room = 0;
    indices.reset(new std::uint32_t[size]);
    values.reset(new float[size]);
    room = size;
  }
  return {indices.get(), values.get()};
}

std::size_t select_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t k,
                       py::handle indices_object, py::handle values_object) {
  const Array<float> x(x_object, "x");
  if (x.size > std::size_t{std::numeric_limits<std::uint32_t>::max()}) {
    throw py::value_error("x has " + std::to_string(x.size) +
                          " elements, more than the 4294967295 that uint32 indices reach; split it");
  }
  if (k < 0 || static_cast<std::size_t>(k) > x.size) {
    throw py::value_error("k must be in 0.." + std::to_string(x.size) + ", got " + std::to_string(k));
  }
  const auto count = static_cast<std::size_t>(k);
  const Array<std::uint32_t> indices(indices_object, "indices");
  const Array<float> values(values_object, "values");
  indices.output().sized(count, "k");
  values.output().sized(count, "k");
  require_apart(x, indices);
  require_apart(x, values);
  require_apart(indices, values);
  F32* residual_data = nullptr;
  if (!residual_object.is_none()) {
    const Array<float> residual(residual_object, "residual");
    residual.output().sized(x.size, "as x has");
    require_apart(x, residual);
    require_apart(residual, indices);
    require_apart(residual, values);
    residual_data = residual.data;
  }
  const TopkPlan plan = plan_topk(x.size, count);
  const TopkWorkspace workspace = workspace_of(plan.room);
  py::gil_scoped_release nogil;  // touches no Python object
  return active<TopkKernels>().select_f32(x.data, residual_data, x.size, count, indices.data, values.data,
                                          plan, workspace);
}

void scatter_f32(py::handle indices_object, py::handle values_object, double weight_value,
                 py::handle out_object) {
  const Array<std::uint32_t> indices(indices_object, "indices");
  const Array<float> values(values_object, "values");
  const Array<float> out(out_object, "out");
  values.sized(indices.size, "as indices has");
  require_apart(indices, out.output());
  require_apart(values, out);
  const float weight = finite_weight(weight_value, "weight");
  if (indices.size == 0) return;
  std::uint32_t largest = 0;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    largest = active<TopkKernels>().max_u32(indices.data, indices.size);
    if (largest < out.size) {
      active<TopkKernels>().scatter_f32(indices.data, values.data, indices.size, weight, out.data);
      return;
    }
  }
  throw py::index_error("indices holds " + std::to_string(largest) + ", but out has " +
                        std::to_string(out.size) + " elements; out is unchanged");
}

}  // namespace

void bind_topk(py::module_& m) {
  m.def("topk_select_f32", select_f32, py::arg("x"), py::arg("residual"), py::arg("k"), py::arg("indices"),
        py::arg("values"));
  m.def("scatter_accumulate_f32", scatter_f32, py::arg("indices"), py::arg("values"), py::arg("weight"),
        py::arg("out"));
}

}  // namespace pydec::bindings
