#include "bindings/arrays.h"
#include "pydec/pool.h"

namespace pydec::bindings {
namespace {

/// Returns false, and changes nothing, if n is out of range.
bool set_threads(std::ptrdiff_t n) {
  if (n < 1 || static_cast<std::size_t>(n) > kMaxThreads) return false;
  set_num_threads(static_cast<std::size_t>(n));
  return true;
}

}  // namespace

void bind_threads(py::module_& m) {
  m.attr("max_threads") = kMaxThreads;
  m.def("num_threads", num_threads);
  m.def("default_threads", default_threads);
  m.def("set_num_threads", set_threads, py::arg("n"));
}

}  // namespace pydec::bindings
