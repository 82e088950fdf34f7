// One view of what callers pass as a vector: a NumPy array, or a torch tensor on any device.
//
// A tensor is read through the DLPack exchange table of its type, or where torch has none through its Python
// methods. Nothing here links torch, imports it, allocates or synchronises; the CUDA module uses it as well.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "bindings/dlpack.h"

namespace pydec::bindings {

namespace py = pybind11;

/// The name of an argument, or of an item of it: "x", "x[3]", "x[3][1]". Becomes text in error messages only.
struct Name {
  // Not explicit: a plain name reads as one.
  Name(const char* argument, std::ptrdiff_t item = -1, std::ptrdiff_t inner = -1)  // NOLINT
      : text(argument), first(item), second(inner) {}

  std::string str() const;

  const char* text;
  std::ptrdiff_t first;
  std::ptrdiff_t second;
};

inline std::string operator+(const Name& a, const char* b) {
  return a.str() + b;
}
inline std::string operator+(const Name& a, const std::string& b) {
  return a.str() + b;
}
inline std::string operator+(const std::string& a, const Name& b) {
  return a + b.str();
}
inline std::string operator+(const char* a, const Name& b) {
  return a + b.str();
}

/// DLPack's type code and the bits of an element, or `other` for what no kernel takes.
enum class Dtype : std::uint16_t {
  other = 0,
  int8 = 0x0008,
  int16 = 0x0010,
  int32 = 0x0020,
  int64 = 0x0040,
  uint8 = 0x0108,
  uint16 = 0x0110,
  uint32 = 0x0120,
  uint64 = 0x0140,
  float16 = 0x0210,
  float32 = 0x0220,
  float64 = 0x0240,
  bfloat16 = 0x0410,
};

/// "float32", as NumPy and torch call it.
const char* name_of(Dtype dtype);

/// Bytes of an element.
constexpr std::size_t bytes_of(Dtype dtype) {
  return (static_cast<std::size_t>(dtype) & 0xff) / 8;
}

/// Where an argument's elements are and what they are. The object must outlive the use of `data`.
struct Span {
  /// Raises TypeError if the object is neither a NumPy array nor a torch tensor, ValueError if it is a tensor
  /// without plain memory (sparse, meta, fake, batched). The expected type serves the message only.
  Span(py::handle object, const Name& name, Dtype expected = Dtype::other);

  /// Raises TypeError if the elements are of another type, ValueError if the memory is on another kind of
  /// device or the object is not one-dimensional and contiguous.
  void require(py::handle object, const Name& name, Dtype expected, dlpack::DeviceType device) const {
    if (dtype != expected || device_type != device || !flat) refuse(object, name, expected, device);
  }

  /// Raises TypeError: the argument must be of the `wanted` type; `to` is what to make of it, `because`
  /// follows.
  [[noreturn]] void refuse_dtype(py::handle object, const Name& name, const std::string& wanted, Dtype to,
                                 const std::string& because = "") const;

  void* data = nullptr;
  std::size_t size = 0;  ///< elements
  Dtype dtype = Dtype::other;
  std::int32_t device_type = dlpack::kCpu;  ///< pinned memory counts as the CPU's
  std::int32_t device_id = 0;
  bool writeable = true;  ///< tensors always are
  bool flat = false;      ///< one-dimensional and contiguous; otherwise `size` means nothing
  bool tensor = false;

 private:
  [[noreturn]] void refuse(py::handle object, const Name& name, Dtype expected,
                           dlpack::DeviceType device) const;
};

/// The stream on which torch queues work for a device now, a cudaStream_t for CUDA; `tensor` is any tensor.
void* current_work_stream(py::handle tensor, std::int32_t device_type, std::int32_t device_id);

}  // namespace pydec::bindings
