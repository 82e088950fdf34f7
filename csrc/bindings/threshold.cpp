#include "pydec/threshold.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "bindings/candidates.h"

namespace pydec::bindings {
namespace {

constexpr std::size_t kEntryBytes = 8;  // an index and a value
constexpr std::size_t kLine = 16;

struct Workspace {
  std::uint32_t* indices;
  float* values;
};

/// Memory of the calling thread, kept from call to call.
Workspace workspace_of(std::size_t size) {
  thread_local Room<std::uint32_t> indices;
  thread_local Room<float> values;
  return {indices.of(size), values.of(size)};
}

py::tuple select_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t k, std::ptrdiff_t least,
                     py::handle entries_object) {
  const Array<float> x(x_object, "x");
  if (x.size > std::size_t{std::numeric_limits<std::uint32_t>::max()}) {
    throw py::value_error("x has " + std::to_string(x.size) +
                          " elements, more than the 4294967295 that uint32 indices reach; split it");
  }
  const Array<std::uint8_t> entries(entries_object, "entries");
  const std::size_t most = entries.output().size / kEntryBytes;
  if (most > x.size || (most == 0 && x.size != 0) || entries.size % kEntryBytes != 0) {
    throw py::value_error("entries must have room for 1.." + std::to_string(x.size) +
                          " entries of 8 bytes, got " + std::to_string(entries.size) + " bytes");
  }
  if (k < 0 || static_cast<std::size_t>(k) > most || (k == 0 && most != 0)) {
    throw py::value_error("k must be in 1.." + std::to_string(most) + ", got " + std::to_string(k));
  }
  if (least < 0 || least > k || (least == 0 && k != 0)) {
    throw py::value_error("least must be in 1.." + std::to_string(k) + ", got " + std::to_string(least));
  }
  require_apart(x, entries);
  F32* residual = residual_of(residual_object, x, entries);
  if (x.size == 0) return py::make_tuple(0, 0);
  const ThresholdPlan plan =
      plan_threshold(x.size, static_cast<std::size_t>(k), static_cast<std::size_t>(least), most);
  const std::size_t samples = plan.sample_lines * kLine;
  const Workspace workspace = workspace_of(std::max(samples, most));
  SharedCandidates shared(x.size, plan.sample_lines != 0 ? most : 0);
  const ThresholdKernels& kernels = active<ThresholdKernels>();
  std::size_t bad = 0;
  std::size_t found = 0;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    // The sample is done with before the first value is written.
    if (shared.several()) {
      const Bracket bracket = kernels.bracket_f32(x.data, residual, x.size, plan, workspace.values);
      const TopkCandidates candidates =
          shared.collect(x.data, residual, bracket, {workspace.indices, workspace.values});
      found = kernels.finish_f32(x.data, residual, x.size, plan, candidates, workspace.indices,
                                 workspace.values, bad);
    } else {
      found = kernels.select_f32(x.data, residual, x.size, plan, workspace.indices, workspace.values,
                                 workspace.values, bad);
    }
    std::memcpy(entries.data, workspace.indices, found * sizeof(std::uint32_t));
    std::memcpy(entries.data + found * sizeof(std::uint32_t), workspace.values, found * sizeof(float));
  }
  return py::make_tuple(found, bad);
}

}  // namespace

void bind_threshold(Module& m) {
  m.def("threshold_select_f32", select_f32, py::arg("x"), py::arg("residual"), py::arg("k"), py::arg("least"),
        py::arg("entries"));
}

}  // namespace pydec::bindings
