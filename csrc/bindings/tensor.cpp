#include "bindings/tensor.h"

#include <cstring>

#include "bindings/module.h"

namespace pydec::bindings {
namespace {

constexpr struct {
  Dtype dtype;
  const char* name;
} kNames[] = {
    {Dtype::int8, "int8"},       {Dtype::int16, "int16"},     {Dtype::int32, "int32"},
    {Dtype::int64, "int64"},     {Dtype::uint8, "uint8"},     {Dtype::uint16, "uint16"},
    {Dtype::uint32, "uint32"},   {Dtype::uint64, "uint64"},   {Dtype::float16, "float16"},
    {Dtype::float32, "float32"}, {Dtype::float64, "float64"}, {Dtype::bfloat16, "bfloat16"},
};

Dtype known(unsigned code, unsigned bits) {
  const auto dtype = static_cast<Dtype>(code << 8 | bits);
  for (const auto& entry : kNames) {
    if (entry.dtype == dtype) return dtype;
  }
  return Dtype::other;
}

/// sys.modules[name].attribute as a new reference, or null; imports nothing.
PyObject* loaded(const char* module_name, const char* attribute) {
  PyObject* modules = PyImport_GetModuleDict();  // borrowed
  PyObject* module_object = PyDict_GetItemString(modules, module_name);
  PyObject* found = module_object == nullptr ? nullptr : PyObject_GetAttrString(module_object, attribute);
  if (found == nullptr) PyErr_Clear();
  return found;
}

/// The exchange table that a type offers, or null.
const dlpack::Exchange* exchange_of(PyTypeObject* type) {
  PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), dlpack::kAttribute);
  const void* found = nullptr;
  if (capsule != nullptr && PyCapsule_IsValid(capsule, dlpack::kCapsule)) {
    found = PyCapsule_GetPointer(capsule, dlpack::kCapsule);
  }
  Py_XDECREF(capsule);  // the table itself lives as long as the process
  PyErr_Clear();
  const auto* header = static_cast<const dlpack::Header*>(found);
  while (header != nullptr && header->version.major != dlpack::kMajor) header = header->previous;
  const auto* exchange = reinterpret_cast<const dlpack::Exchange*>(header);
  return exchange != nullptr && exchange->dltensor_from_py_object_no_sync != nullptr ? exchange : nullptr;
}

/// torch's types once torch is loaded, and the exchange tables of the two that nearly all tensors have.
/// The references are never dropped: both types live as long as torch, which is for ever.
struct Types {
  PyTypeObject* tensor = nullptr;
  PyTypeObject* parameter = nullptr;
  const dlpack::Exchange* of_tensor = nullptr;
  const dlpack::Exchange* of_parameter = nullptr;
};

Types types;

/// Finds torch's types if torch has been loaded since the last call.
void look_for_torch() {
  if (types.tensor == nullptr) {
    PyObject* found = loaded("torch", "Tensor");
    if (found == nullptr || !PyType_Check(found)) return Py_XDECREF(found);
    types.tensor = reinterpret_cast<PyTypeObject*>(found);
    types.of_tensor = exchange_of(types.tensor);
  }
  if (types.parameter == nullptr) {
    PyObject* found = loaded("torch.nn.parameter", "Parameter");
    if (found == nullptr || !PyType_Check(found)) return Py_XDECREF(found);
    types.parameter = reinterpret_cast<PyTypeObject*>(found);
    types.of_parameter = exchange_of(types.parameter);
  }
}

bool is_tensor(PyTypeObject* type) {
  if (type == types.tensor || type == types.parameter) return true;
  look_for_torch();
  return types.tensor != nullptr && PyType_IsSubtype(type, types.tensor) != 0;
}

/// Of a tensor's type. Other subclasses may come and go, and may hide the table: they are asked every time.
const dlpack::Exchange* table_of(PyTypeObject* type) {
  if (type == types.tensor) return types.of_tensor;
  if (type == types.parameter) return types.of_parameter;
  return exchange_of(type);
}

std::string text_of(const py::handle& object) {
  return std::string(py::str(object));
}

/// Ends with a ValueError that says why a tensor's elements cannot be reached; takes over a Python error.
[[noreturn]] void raise_unreadable(py::handle tensor, const Name& name) {
  std::string reason = "it has no memory of its own, as a fake or a functional tensor has not";
  if (PyErr_Occurred() != nullptr) {
    const py::error_already_set error;
    const std::string text = error.what();
    reason = text.substr(0, text.find('\n'));  // torch appends its call stack
  }
  const std::string device = text_of(tensor.attr("device").attr("type"));
  const std::string layout = text_of(tensor.attr("layout"));
  if (device == "meta") reason = "it is on the meta device and has no elements";
  if (layout != "torch.strided") reason = "its layout is " + layout + "; use " + name + ".to_dense()";
  throw py::value_error(name + " cannot be read as plain memory: " + reason);
}

/// True if the elements stand for the negative of what memory holds. Views that torch's public functions make
/// so have a stride of 2 or more, and so are contiguous with a single element only.
bool is_negative_view(py::handle tensor, std::int64_t size, std::int64_t stride) {
  return size == 1 && stride != 1 && py::cast<bool>(tensor.attr("is_neg")());
}

void read_shape(Span& span, py::handle tensor, std::int64_t size, std::int64_t stride) {
  span.size = static_cast<std::size_t>(size);
  span.flat = (size <= 1 || stride == 1) && !is_negative_view(tensor, size, stride);
}

void read_exchange(Span& span, py::handle object, const Name& name, const dlpack::Exchange& exchange) {
  dlpack::Tensor tensor{};
  if (exchange.dltensor_from_py_object_no_sync(object.ptr(), &tensor) != 0) raise_unreadable(object, name);
  span.dtype = tensor.dtype.lanes == 1 ? known(tensor.dtype.code, tensor.dtype.bits) : Dtype::other;
  span.device_type =
      tensor.device.type == dlpack::kCudaHost ? std::int32_t{dlpack::kCpu} : tensor.device.type;
  span.device_id = tensor.device.id;
  if (tensor.ndim == 1) read_shape(span, object, tensor.shape[0], tensor.strides ? tensor.strides[0] : 1);
  if (span.size != 0) {
    if (tensor.data == nullptr) raise_unreadable(object, name);
    span.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  }
}

/// The same by a tensor's own methods, some microseconds: for a torch older than its exchange table.
void read_methods(Span& span, py::handle object, const Name& name) {
  try {
    const std::string device = text_of(object.attr("device").attr("type"));
    if (device == "meta" || text_of(object.attr("layout")) != "torch.strided") raise_unreadable(object, name);
    const std::string dtype = text_of(object.attr("dtype"));  // "torch.float32"
    for (const auto& entry : kNames) {
      if (dtype.compare(6, std::string::npos, entry.name) == 0) span.dtype = entry.dtype;
    }
    span.device_type = device == "cpu" ? dlpack::kCpu : device == "cuda" ? dlpack::kCuda : -1;
    const py::object index = object.attr("device").attr("index");
    span.device_id = index.is_none() ? 0 : py::cast<std::int32_t>(index);
    const py::tuple shape = object.attr("shape");
    if (shape.size() == 1) {
      const auto stride = py::cast<py::tuple>(object.attr("stride")());
      read_shape(span, object, py::cast<std::int64_t>(shape[0]), py::cast<std::int64_t>(stride[0]));
    }
    if (span.size != 0)
      span.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(object.attr("data_ptr")()));
  } catch (py::error_already_set& error) {
    error.restore();
    raise_unreadable(object, name);
  }
  if (span.size != 0 && span.data == nullptr) raise_unreadable(object, name);
}

void read_array(Span& span, PyObject* object) {
  const auto* array = py::detail::array_proxy(object);
  const auto* type = py::detail::array_descriptor_proxy(array->descr);
  if (type->byteorder == '=' || type->byteorder == '|') {
    const unsigned code = type->kind == 'i' ? 0 : type->kind == 'u' ? 1 : type->kind == 'f' ? 2 : 0xff;
    const auto bytes = py::reinterpret_borrow<py::dtype>(array->descr).itemsize();
    span.dtype = code != 0xff && bytes <= 8 ? known(code, static_cast<unsigned>(8 * bytes)) : Dtype::other;
  }
  span.data = array->data;
  span.writeable = (array->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0;
  if (array->nd == 1) {
    span.size = static_cast<std::size_t>(array->dimensions[0]);
    span.flat = span.size <= 1 || array->strides[0] == static_cast<py::ssize_t>(bytes_of(span.dtype));
  }
}

std::string device_text(std::int32_t type, std::int32_t id) {
  if (type == dlpack::kCpu) return "the CPU";
  if (type == dlpack::kCuda) return "cuda:" + std::to_string(id);
  return "a device of DLPack type " + std::to_string(type);
}

}  // namespace

const char* name_of(Dtype dtype) {
  for (const auto& entry : kNames) {
    if (entry.dtype == dtype) return entry.name;
  }
  return "unknown";
}

std::string Name::str() const {
  std::string whole = text;
  if (first >= 0) whole += "[" + std::to_string(first) + "]";
  if (second >= 0) whole += "[" + std::to_string(second) + "]";
  return whole;
}

Span::Span(py::handle object, const Name& name, Dtype expected) {
  if (py::detail::npy_api::get().PyArray_Check_(object.ptr())) {
    read_array(*this, object.ptr());
    return;
  }
  PyTypeObject* type = Py_TYPE(object.ptr());
  if (!is_tensor(type)) {
    const std::string of = expected == Dtype::other ? "" : std::string(" of ") + name_of(expected);
    throw py::type_error(name + " must be a NumPy array" + of + ", got " + type->tp_name +
                         "; a torch tensor is taken as well");
  }
  tensor = true;
  if (const dlpack::Exchange* exchange = table_of(type)) {
    read_exchange(*this, object, name, *exchange);
  } else {
    read_methods(*this, object, name);
  }
}

void Span::refuse_dtype(py::handle object, const Name& name, const std::string& wanted, Dtype to,
                        const std::string& because) const {
  const bool by_numpy = !tensor && to != Dtype::bfloat16;  // which NumPy does not have
  const std::string way = (tensor || by_numpy ? name.str() : "torch.from_numpy(" + name + ")") +
                          (by_numpy ? ".astype(np." : ".to(torch.") + name_of(to) + ")";
  throw py::type_error(name + " must be a " + wanted + " array, got " + text_of(object.attr("dtype")) +
                       "; use " + way + because);
}

void Span::refuse(py::handle object, const Name& name, Dtype expected, dlpack::DeviceType device) const {
  if (dtype != expected) refuse_dtype(object, name, name_of(expected), expected);
  if (device_type != device) {
    const std::string way = device == dlpack::kCpu ? name + ".cpu()"
                            : tensor               ? name + ".cuda()"
                                                   : "torch.from_numpy(" + name + ").cuda()";
    const std::string what = name + " is on " + device_text(device_type, device_id) +
                             ", but this call works on " +
                             (device == dlpack::kCpu ? "the CPU" : "a CUDA device") + "; use " + way;
    if (device == dlpack::kCpu && device_type == dlpack::kCuda) throw OnGpu(what);
    throw py::value_error(what);
  }
  if (tensor && size == 1) {
    throw py::value_error(name + " is a negated view of other memory; use " + name + ".resolve_neg()");
  }
  const py::object strides = tensor ? object.attr("stride")() : object.attr("strides");
  const std::string way =
      tensor ? name + ".contiguous().view(-1)" : "np.ascontiguousarray(" + name + ").reshape(-1)";
  throw py::value_error(name + " must be one-dimensional and contiguous, got shape " +
                        text_of(py::tuple(py::list(object.attr("shape")))) + " and strides " +
                        text_of(strides) + "; use " + way);
}

void* current_work_stream(py::handle tensor, std::int32_t device_type, std::int32_t device_id) {
  if (const dlpack::Exchange* exchange = table_of(Py_TYPE(tensor.ptr()))) {
    void* stream = nullptr;
    if (exchange->current_work_stream(device_type, device_id, &stream) != 0) throw py::error_already_set();
    return stream;
  }
  if (device_type != dlpack::kCuda) return nullptr;
  const py::object stream = py::module_::import("torch").attr("cuda").attr("current_stream")(device_id);
  return reinterpret_cast<void*>(py::cast<std::uintptr_t>(stream.attr("cuda_stream")));
}

}  // namespace pydec::bindings
