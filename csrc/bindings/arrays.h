// What a binding checks before a kernel sees a pointer: type, shape, contiguity, room, overlap.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace pydec::bindings {

namespace py = pybind11;

template <class T>
struct Element;

template <>
struct Element<float> {
  static constexpr const char* name = "float32";
  static constexpr char kind = 'f';
};

template <>
struct Element<double> {
  static constexpr const char* name = "float64";
  static constexpr char kind = 'f';
};

template <>
struct Element<std::int8_t> {
  static constexpr const char* name = "int8";
  static constexpr char kind = 'i';
};

template <>
struct Element<std::uint8_t> {
  static constexpr const char* name = "uint8";
  static constexpr char kind = 'u';
};

template <>
struct Element<std::uint16_t> {
  static constexpr const char* name = "uint16";
  static constexpr char kind = 'u';
};

template <>
struct Element<std::uint32_t> {
  static constexpr const char* name = "uint32";
  static constexpr char kind = 'u';
};

/// A one-dimensional C-contiguous NumPy array of T; the pointer may be unaligned.
template <class T>
struct Array {
  /// Raises TypeError or ValueError that names the argument.
  Array(py::handle object, const std::string& argument) : name(argument) {
    if (!py::isinstance<py::array>(object)) {
      throw py::type_error(name + " must be a NumPy array of " + Element<T>::name + ", got " +
                           Py_TYPE(object.ptr())->tp_name + "; a torch tensor on the CPU has .numpy()");
    }
    const auto array = py::reinterpret_borrow<py::array>(object);
    const py::dtype type = array.dtype();
    const char order = type.byteorder();
    if (type.kind() != Element<T>::kind || type.itemsize() != sizeof(T) || (order != '=' && order != '|')) {
      throw py::type_error(name + " must be a " + Element<T>::name + " array, got " +
                           std::string(py::str(type)) + "; use " + name + ".astype(np." + Element<T>::name +
                           ")");
    }
    if (array.ndim() != 1 || (array.shape(0) > 1 && array.strides(0) != sizeof(T))) {
      throw py::value_error(name + " must be one-dimensional and contiguous, got shape " +
                            std::string(py::str(object.attr("shape"))) + " and strides " +
                            std::string(py::str(object.attr("strides"))) + "; use np.ascontiguousarray(" +
                            name + ").reshape(-1)");
    }
    data = static_cast<T*>(const_cast<void*>(array.data()));
    size = static_cast<std::size_t>(array.shape(0));
    writeable = array.writeable();
  }

  /// Raises ValueError unless the array has `expected` elements.
  const Array& sized(std::size_t expected, const char* why) const {
    if (size != expected) {
      throw py::value_error(name + " must have " + std::to_string(expected) + " elements (" + why +
                            "), got " + std::to_string(size));
    }
    return *this;
  }

  /// Raises ValueError if the array is read-only.
  const Array& output() const {
    if (!writeable)
      throw py::value_error(name + " is read-only and would be written; pass a writeable array");
    return *this;
  }

  const char* begin() const { return reinterpret_cast<const char*>(data); }
  const char* end() const { return reinterpret_cast<const char*>(data + size); }

  T* data = nullptr;
  std::size_t size = 0;
  bool writeable = false;
  std::string name;
};

/// Raises ValueError if two arrays share memory; exactly the same memory is accepted if `same_allowed`.
template <class A, class B>
void require_apart(const Array<A>& a, const Array<B>& b, bool same_allowed = false) {
  if (a.size == 0 || b.size == 0 || a.begin() >= b.end() || b.begin() >= a.end()) return;
  if (same_allowed && a.begin() == b.begin() && a.end() == b.end()) return;
  throw py::value_error(a.name + " and " + b.name + " overlap in memory; pass separate arrays");
}

/// A finite float32 weight; raises ValueError that names the argument.
inline float finite_weight(double value, const std::string& name) {
  const auto weight = static_cast<float>(value);
  if (!std::isfinite(weight)) {
    throw py::value_error(name + " must be a finite float32 number, got " + std::to_string(value));
  }
  return weight;
}

/// "name[k]", for error messages.
inline std::string item_name(const char* name, std::size_t k) {
  return std::string(name) + "[" + std::to_string(k) + "]";
}

void bind_cast(py::module_& m);
void bind_choco(py::module_& m);
void bind_block_topk(py::module_& m);
void bind_copy(py::module_& m);
void bind_distance(py::module_& m);
void bind_mix(py::module_& m);
void bind_int8(py::module_& m);
void bind_quant(py::module_& m);
void bind_topk(py::module_& m);
void bind_reduce(py::module_& m);
void bind_robust(py::module_& m);
void bind_update(py::module_& m);
void bind_randk(py::module_& m);
void bind_sparse(py::module_& m);
void bind_threshold(py::module_& m);

}  // namespace pydec::bindings
