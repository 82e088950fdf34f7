#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "pydec/target.h"

namespace {

namespace py = pybind11;

std::vector<std::string> targets() {
  std::vector<std::string> names;
  for (const pydec::Target target : pydec::kBuilt) {
    if (pydec::is_available(target)) names.emplace_back(pydec::name_of(target));
  }
  return names;
}

bool set_target(const std::string& name) {
  for (const pydec::Target target : pydec::kBuilt) {
    if (name != pydec::name_of(target) || !pydec::is_available(target)) continue;
    pydec::set_active_target(target);
    return true;
  }
  return false;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  if (targets().empty()) {
    throw py::import_error("pydec needs a CPU with SSE4.2 (x86-64-v2, every x86-64 CPU since 2011)");
  }
  m.doc() = "CPU kernels of pydec; use them through pydec.kernels.";
  m.attr("cuda_build") = PYDEC_CUDA_BUILD;
  m.def("targets", targets);
  m.def("target", [] { return std::string(pydec::name_of(pydec::active_target())); });
  m.def("set_target", set_target, py::arg("name"));
  pydec::bindings::Module kernels(m);
  pydec::bindings::bind_cast(kernels);
  pydec::bindings::bind_choco(kernels);
  pydec::bindings::bind_block_topk(kernels);
  pydec::bindings::bind_copy(kernels);
  pydec::bindings::bind_demo(kernels);
  pydec::bindings::bind_distance(kernels);
  pydec::bindings::bind_mix(kernels);
  pydec::bindings::bind_powersgd(kernels);
  pydec::bindings::bind_quant(kernels);
  pydec::bindings::bind_quant_distance(kernels);
  pydec::bindings::bind_topk(kernels);
  pydec::bindings::bind_reduce(kernels);
  pydec::bindings::bind_robust(kernels);
  pydec::bindings::bind_update(kernels);
  pydec::bindings::bind_randk(kernels);
  pydec::bindings::bind_gaps(kernels);
  pydec::bindings::bind_topk_int8(kernels);
  pydec::bindings::bind_sparse(kernels);
  pydec::bindings::bind_threads(m);
  pydec::bindings::bind_threshold(kernels);
}
