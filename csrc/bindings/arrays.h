// What a binding checks before a kernel sees a pointer: type, device, shape, contiguity, room, overlap.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "bindings/module.h"
#include "bindings/tensor.h"

namespace pydec::bindings {

template <class T>
constexpr Dtype dtype_of = Dtype::other;
template <>
inline constexpr Dtype dtype_of<float> = Dtype::float32;
template <>
inline constexpr Dtype dtype_of<double> = Dtype::float64;
template <>
inline constexpr Dtype dtype_of<std::int8_t> = Dtype::int8;
template <>
inline constexpr Dtype dtype_of<std::uint8_t> = Dtype::uint8;
template <>
inline constexpr Dtype dtype_of<std::uint16_t> = Dtype::uint16;
template <>
inline constexpr Dtype dtype_of<std::uint32_t> = Dtype::uint32;

/// A one-dimensional C-contiguous NumPy array or torch tensor of T; the pointer may be unaligned.
template <class T>
struct Array {
  static_assert(dtype_of<T> != Dtype::other);

  /// Raises TypeError or ValueError that names the argument. Elements of the other type, of the same size,
  /// are taken as well.
  Array(py::handle object, const Name& argument, dlpack::DeviceType device = dlpack::kCpu,
        Dtype other = dtype_of<T>)
      : Array(Span(object, argument, dtype_of<T>), object, argument, device, other) {}

  /// The same of an object that has been read.
  Array(const Span& span, py::handle object, const Name& argument, dlpack::DeviceType device = dlpack::kCpu,
        Dtype other = dtype_of<T>)
      : name(argument) {
    span.require(object, argument, span.dtype == other ? other : dtype_of<T>, device);
    data = static_cast<T*>(span.data);
    size = span.size;
    device_id = span.device_id;
    writeable = span.writeable;
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

  /// Element k, wherever it lies: bindings read and write through these, since `data` may be unaligned.
  T at(std::size_t k) const {
    T value;
    __builtin_memcpy(&value, begin() + k * sizeof(T), sizeof(T));
    return value;
  }
  void put(std::size_t k, T value) const {
    __builtin_memcpy(reinterpret_cast<char*>(data) + k * sizeof(T), &value, sizeof(T));
  }

  const char* begin() const { return reinterpret_cast<const char*>(data); }
  const char* end() const { return reinterpret_cast<const char*>(data + size); }

  T* data = nullptr;
  std::size_t size = 0;
  std::int32_t device_id = 0;
  bool writeable = false;
  Name name;
};

/// Raises ValueError if two arrays share memory; exactly the same memory is accepted if `same_allowed`.
template <class A, class B>
void require_apart(const Array<A>& a, const Array<B>& b, bool same_allowed = false) {
  if (a.size == 0 || b.size == 0 || a.begin() >= b.end() || b.begin() >= a.end()) return;
  if (same_allowed && a.begin() == b.begin() && a.end() == b.end()) return;
  throw py::value_error(a.name + " and " + b.name + " overlap in memory; pass separate arrays");
}

/// Raises ValueError if any two of several arrays share memory.
template <class First, class... Others>
void require_all_apart(const First& first, const Others&... others) {
  (require_apart(first, others), ...);
  if constexpr (sizeof...(others) > 1) require_all_apart(others...);
}

/// Another vector of a call whose vectors have one type, that of `first`. Raises TypeError that names both.
template <class T>
Array<T> beside(const Array<T>& first, py::handle object, const Name& name) {
  const Span span(object, name, dtype_of<T>);
  if (span.dtype != dtype_of<T>) {
    span.refuse_dtype(object, name, name_of(dtype_of<T>), dtype_of<T>, ", as " + first.name + " is");
  }
  return Array<T>(span, object, name);
}

/// The residual of an error feedback: null for None, else written, as long as x, apart from x and the
/// outputs.
template <class T, class... Outputs>
T* residual_of(py::handle object, const Array<T>& x, const Outputs&... outputs) {
  if (object.is_none()) return nullptr;
  const Array<T> residual = beside(x, object, "residual");
  residual.output().sized(x.size, "as x has");
  require_apart(x, residual);
  (require_apart(residual, outputs), ...);
  return residual.data;
}

/// The items of a sequence, kept alive by this object whatever becomes of the sequence.
inline py::tuple items_of(const py::sequence& sequence) {
  PyObject* items = PySequence_Tuple(sequence.ptr());
  if (items == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::tuple>(items);
}

/// Blocks of n elements; the last may be short.
inline std::size_t blocks_of(std::size_t n, std::size_t block) {
  return n / block + (n % block != 0 ? 1 : 0);
}

/// A finite weight, rounded to Real; raises ValueError that names the argument.
template <class Real = float>
Real finite_weight(double value, const Name& name) {
  const auto weight = static_cast<Real>(value);
  if (!std::isfinite(weight)) {
    throw py::value_error(name + " must be a finite " + name_of(dtype_of<Real>) + " number, got " +
                          std::to_string(value));
  }
  return weight;
}

/// "name[k]", for error messages.
inline Name item_name(const char* name, std::size_t k) {
  return {name, static_cast<std::ptrdiff_t>(k)};
}

/// "name[k][b]".
inline Name item_name(const char* name, std::size_t k, std::size_t b) {
  return {name, static_cast<std::ptrdiff_t>(k), static_cast<std::ptrdiff_t>(b)};
}

/// A number among the arguments; raises TypeError that names it.
inline double number_of(py::handle object, const Name& name) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw py::type_error(name + " must be a number, got " + Py_TYPE(object.ptr())->tp_name);
  }
  return value;
}

/// A finite weight among the arguments; raises TypeError or ValueError that names it.
template <class Real = float>
Real weight_of(py::handle object, const Name& name) {
  return finite_weight<Real>(number_of(object, name), name);
}

/// Memory that grows to the largest request and stays, so that calls allocate nothing; one for each thread.
template <class T>
class Room {
 public:
  T* of(std::size_t n) {
    if (n > size_) {
      size_ = 0;  // if the allocation fails, nothing is promised
      data_.reset(new T[n]);
      size_ = n;
    }
    return data_.get();
  }

 private:
  std::unique_ptr<T[]> data_;
  std::size_t size_ = 0;
};

void bind_cast(Module& m);
void bind_choco(Module& m);
void bind_block_topk(Module& m);
void bind_copy(Module& m);
void bind_demo(Module& m);
void bind_distance(Module& m);
void bind_mix(Module& m);
void bind_powersgd(Module& m);
void bind_quant(Module& m);
void bind_quant_distance(Module& m);
void bind_topk(Module& m);
void bind_reduce(Module& m);
void bind_robust(Module& m);
void bind_update(Module& m);
void bind_randk(Module& m);
void bind_gaps(Module& m);
void bind_topk_int8(Module& m);
void bind_sparse(Module& m);
void bind_threads(py::module_& m);
void bind_threshold(Module& m);

}  // namespace pydec::bindings
