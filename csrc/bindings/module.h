// How the CPU module defines its functions, so that tensors on a GPU find theirs.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>

namespace pydec::bindings {

namespace py = pybind11;

/// An argument is on a GPU, and the call works on the CPU. Thrown before anything is read or written.
struct OnGpu : py::value_error {
  using py::value_error::value_error;
};

/// The module under construction.
class Module {
 public:
  explicit Module(py::module_& module) : module_(module) {}

  /// As py::module_::def. A call with a tensor on a GPU goes on, with the same arguments, to the function of
  /// the same name in pydec.kernels.cuda.single; calls on the CPU pay nothing for it.
  template <class Result, class... Args, class... Extra>
  void def(const char* name, Result (*function)(Args...), const Extra&... extra) {
    const auto call = [function, name](Args... args) -> py::object {
      try {
        if constexpr (std::is_void_v<Result>) {
          function(args...);
          return py::none();
        } else if constexpr (std::is_base_of_v<py::object, Result>) {
          return function(args...);
        } else {
          return py::cast(function(args...));
        }
      } catch (const OnGpu&) {
        const py::module_ single = py::module_::import("pydec.kernels.cuda.single");
        if (!py::hasattr(single, name)) throw;
        return single.attr(name)(args...);
      }
    };
    module_.def(name, call, extra...);
  }

 private:
  py::module_& module_;
};

}  // namespace pydec::bindings
