// The part of DLPack's C ABI (1.x, exchange API of 1.2) that reads tensors without owning them.
//
// Source: the DLPack specification, https://dmlc.github.io/dlpack/latest/c_api.html. The layout is frozen for
// a major version; a type that offers `__dlpack_c_exchange_api__` holds a capsule with an `Exchange`.
#pragma once

#include <cstdint>

namespace pydec::dlpack {

constexpr const char* kAttribute = "__dlpack_c_exchange_api__";
constexpr const char* kCapsule = "dlpack_exchange_api";
constexpr std::uint32_t kMajor = 1;

/// Those device types that pydec has kernels or a name for.
enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;  ///< 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  ///< in elements; null means contiguous before 1.2
  std::uint64_t byte_offset;
};

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};

struct Header {
  Version version;
  const Header* previous;  ///< an older major version's table, or null
};

/// Functions return 0, or -1 with a Python exception set; the GIL must be held.
struct Exchange {
  Header header;
  void* managed_tensor_allocator;
  void* managed_tensor_from_py_object_no_sync;
  void* managed_tensor_to_py_object_no_sync;
  int (*dltensor_from_py_object_no_sync)(void* object, Tensor* out);  ///< may be null
  int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** stream);
};

}  // namespace pydec::dlpack
