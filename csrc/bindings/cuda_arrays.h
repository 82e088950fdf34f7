// What a binding of the CUDA module checks: as bindings/arrays.h, and that all arrays of a call lie on one
// GPU and are aligned to their elements. For the emulator, tensors that say they are
// on a GPU are in the host's memory.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {

template <>
inline constexpr Dtype dtype_of<unsigned long long> = Dtype::int64;

/// The GPU of a call's arrays, and the stream on which torch queues work for it.
class Place {
 public:
  void join([[maybe_unused]] py::handle object, std::int32_t device, const Name& name) {
    if (device_ >= 0 && device != device_) {
      throw py::value_error(name + " is on GPU " + std::to_string(device) + ", but the others are on GPU " +
                            std::to_string(device_) + "; move all to one");
    }
    if (device_ >= 0) return;
    device_ = device;
#if !defined(PYDEC_CUDA_EMULATE)
    stream_ = static_cast<cudaStream_t>(current_work_stream(object, dlpack::kCuda, device));
#endif
  }

  /// Calls launch(stream) with the GPU current and the interpreter released; raises RuntimeError.
  template <class Launch>
  void run(const char* what, const Launch& launch) const {
    cudaError_t error = cudaSuccess;
    {
      const py::gil_scoped_release nogil;  // touches no Python object
      int before = 0;
      const bool move = device_ >= 0 && cudaGetDevice(&before) == cudaSuccess && before != device_;
      if (move) error = cudaSetDevice(device_);
      if (error == cudaSuccess) error = launch(stream_);
      if (move) cudaSetDevice(before);
    }
    if (error != cudaSuccess) {
      throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
    }
  }

 private:
  std::int32_t device_ = -1;
  cudaStream_t stream_ = nullptr;
};

/// A one-dimensional contiguous tensor of T on the GPU; integers of either sign are taken.
template <class T>
struct Device : Array<T> {
  Device(Place& place, py::handle object, const Name& argument)
      : Array<T>(object, argument, dlpack::kCuda, twin()) {
    if (reinterpret_cast<std::uintptr_t>(this->data) % sizeof(T) != 0) {
      throw py::value_error(argument + " must be aligned to its elements of " + std::to_string(sizeof(T)) +
                            " bytes; copy it");
    }
    place.join(object, this->device_id, argument);
  }

  /// The same dtype, of the other sign, where kernels do not care; 16 bits may be called what they stand for.
  static constexpr Dtype twin() {
    switch (dtype_of<T>) {
      case Dtype::uint8:
        return Dtype::int8;
      case Dtype::uint16:
        return Dtype::int16;
      case Dtype::uint32:
        return Dtype::int32;
      default:
        return dtype_of<T>;
    }
  }
};

/// As Device, or null for None.
template <class T>
T* optional_pointer(Place& place, py::handle object, const Name& name, std::size_t size, const char* why) {
  if (object.is_none()) return nullptr;
  const Device<T> array(place, object, name);
  array.output().sized(size, why);
  return array.data;
}

/// A device counter of one int64.
inline unsigned long long* counter(Place& place, py::handle object, const char* name) {
  return optional_pointer<unsigned long long>(place, object, name, 1, "one counter");
}

/// The same, which cannot be done without.
inline unsigned long long* needed_counter(Place& place, py::handle object, const char* name,
                                          std::size_t size = 1) {
  const Device<unsigned long long> array(place, object, name);
  array.output().sized(size, "counters");
  return array.data;
}

/// A list of `count` arrays: null for None, if `optional`.
template <class T>
struct Devices {
  Devices(Place& place, const py::object& sequence, const char* name, std::size_t expected,
          bool optional = false) {
    if (optional && sequence.is_none()) {
      data.assign(expected, nullptr);
      return;
    }
    if (!py::isinstance<py::sequence>(sequence)) {
      throw py::type_error(std::string(name) + " must be a list of tensors, got " +
                           Py_TYPE(sequence.ptr())->tp_name);
    }
    objects = items_of(py::reinterpret_borrow<py::sequence>(sequence));
    if (objects.size() != expected) {
      throw py::value_error(std::string(name) + " must be a list of " + std::to_string(expected) +
                            " tensors, got " + std::to_string(objects.size()));
    }
    items.reserve(expected);
    for (std::size_t k = 0; k < expected; ++k) {
      items.emplace_back(place, py::object(objects[k]), item_name(name, k));
      data.push_back(items.back().data);
    }
  }

  const Devices& output() const {
    for (const auto& item : items) item.output();
    return *this;
  }

  /// Raises ValueError unless item k has size_of(k) elements.
  template <class SizeOf>
  const Devices& sized(const SizeOf& size_of, const char* why) const {
    for (std::size_t k = 0; k < items.size(); ++k) items[k].sized(size_of(k), why);
    return *this;
  }

  /// Raises ValueError if item k shares memory with item k of another list, for any k.
  template <class U>
  const Devices& apart(const Devices<U>& other, bool same_allowed = false) const {
    for (std::size_t k = 0; k < items.size() && k < other.items.size(); ++k) {
      require_apart(items[k], other.items[k], same_allowed);
    }
    return *this;
  }

  py::tuple objects;  // keeps them alive
  std::vector<Device<T>> items;
  std::vector<T*> data;
};

/// For every span a list of m arrays.
template <class T>
struct DeviceLists {
  DeviceLists(Place& place, const py::sequence& spans, const char* name, std::size_t m) {
    for (std::size_t k = 0; k < spans.size(); ++k) {
      lists.emplace_back(place, py::object(spans[k]), name, m);
    }
  }

  const T* const* data(std::size_t k) const { return lists[k].data.data(); }

  std::vector<Devices<T>> lists;
};

/// Finite float32 weights.
inline std::vector<float> finite_weights(const py::sequence& sequence) {
  const py::tuple objects = items_of(sequence);
  std::vector<float> weights(objects.size());
  for (std::size_t k = 0; k < weights.size(); ++k)
    weights[k] = weight_of(objects[k], item_name("weights", k));
  return weights;
}

/// An option in least..most; raises ValueError that names it.
inline std::size_t checked_option(std::ptrdiff_t k, std::size_t least, std::size_t most, const char* name) {
  if (k < 0 || static_cast<std::size_t>(k) < least || static_cast<std::size_t>(k) > most) {
    throw py::value_error(std::string(name) + " must be in " + std::to_string(least) + ".." +
                          std::to_string(most) + ", got " + std::to_string(k));
  }
  return static_cast<std::size_t>(k);
}

void bind_cuda_demo(py::module_& m);
void bind_cuda_mix(py::module_& m);
void bind_cuda_powersgd(py::module_& m);
void bind_cuda_quant(py::module_& m);
void bind_cuda_randk(py::module_& m);
void bind_cuda_reduce(py::module_& m);
void bind_cuda_select(py::module_& m);
void bind_cuda_topk_int8(py::module_& m);

}  // namespace pydec::bindings
