#include "pydec/topk.h"

#include <limits>

#include "bindings/candidates.h"
#include "pydec/sparse.h"

namespace pydec::bindings {
namespace {

/// Candidates of the calling thread, kept from call to call.
TopkWorkspace workspace_of(std::size_t capacity) {
  thread_local Room<std::uint32_t> indices;
  thread_local Room<float> values;
  return {indices.of(capacity), values.of(capacity)};
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
  require_all_apart(x, indices, values);
  F32* residual = residual_of(residual_object, x, indices, values);
  const TopkPlan plan = plan_topk(x.size, count);
  const TopkWorkspace workspace = workspace_of(plan.room);
  SharedCandidates shared(x.size, plan.capacity);
  const TopkKernels& kernels = active<TopkKernels>();
  py::gil_scoped_release nogil;  // touches no Python object
  if (!shared.several()) {
    return kernels.select_f32(x.data, residual, x.size, count, indices.data, values.data, plan, workspace);
  }
  const Bracket bracket = kernels.bracket_f32(x.data, residual, x.size, plan, workspace.values);
  const TopkCandidates candidates = shared.collect(x.data, residual, bracket, workspace);
  return kernels.finish_f32(x.data, residual, x.size, count, indices.data, values.data, candidates,
                            workspace);
}

/// Threads share the entries if no two can meet at one element. Without the GIL.
void scatter(const Array<std::uint32_t>& indices, const Array<float>& values, float weight,
             const Array<float>& out) {
  constexpr std::size_t kBytes = 64 + 8;  // a line of `out`, an index and a value
  const auto kernel = active<TopkKernels>().scatter_f32;
  const Shares shares(indices.size, kBytes);
  if (shares.threads() == 1 ||
      !active<SparseKernels>().check(indices.data, values.data, indices.size).increasing) {
    return kernel(indices.data, values.data, indices.size, weight, out.data);
  }
  shares.run([&](const Share& share) {
    kernel(indices.data + share.first, values.data + share.first, share.count, weight, out.data);
  });
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
      scatter(indices, values, weight, out);
      return;
    }
  }
  throw py::index_error("indices holds " + std::to_string(largest) + ", but out has " +
                        std::to_string(out.size) + " elements; out is unchanged");
}

}  // namespace

void bind_topk(Module& m) {
  m.def("topk_select_f32", select_f32, py::arg("x"), py::arg("residual"), py::arg("k"), py::arg("indices"),
        py::arg("values"));
  m.def("scatter_accumulate_f32", scatter_f32, py::arg("indices"), py::arg("values"), py::arg("weight"),
        py::arg("out"));
}

}  // namespace pydec::bindings
