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
  pydec::bindings::bind_cast(m);
  pydec::bindings::bind_choco(m);
  pydec::bindings::bind_block_topk(m);
  pydec::bindings::bind_copy(m);
  pydec::bindings::bind_demo(m);
  pydec::bindings::bind_distance(m);
  pydec::bindings::bind_mix(m);
  pydec::bindings::bind_powersgd(m);
  pydec::bindings::bind_quant(m);
  pydec::bindings::bind_topk(m);
  pydec::bindings::bind_reduce(m);
  pydec::bindings::bind_robust(m);
  pydec::bindings::bind_update(m);
  pydec::bindings::bind_randk(m);
  pydec::bindings::bind_gaps(m);
  pydec::bindings::bind_topk_int8(m);
  pydec::bindings::bind_sparse(m);
  pydec::bindings::bind_threads(m);
  pydec::bindings::bind_threshold(m);
}
