// The optional CUDA module. Pointers and streams are integers: the caller, which has the tensors,
// has checked device, type, contiguity and length.
#include "pydec/cuda.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace py = pybind11;
using Address = std::uintptr_t;

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

int device_count() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  return count;
}

void mix_f32(const std::vector<Address>& x, const std::vector<float>& weights, Address out, std::size_t n,
             Address stream) {
  if (x.size() != weights.size() || x.empty() || x.size() > pydec::cuda::kMaxMix) {
    throw py::value_error("mix on CUDA takes 1.." + std::to_string(pydec::cuda::kMaxMix) +
                          " vectors with a weight each, got " + std::to_string(x.size()) + " vectors and " +
                          std::to_string(weights.size()) + " weights");
  }
  std::vector<const float*> inputs;
  for (const Address address : x) inputs.push_back(pointer<const float>(address));
  py::gil_scoped_release nogil;  // touches no Python object
  check(pydec::cuda::mix_f32(inputs.data(), weights.data(), inputs.size(), pointer<float>(out), n,
                             pointer<CUstream_st>(stream)),
        "mix_f32");
}

void int8_encode_f32(Address x, std::size_t n, std::size_t block, Address codes, Address scales, Address bad,
                     Address stream) {
  py::gil_scoped_release nogil;  // touches no Python object
  check(pydec::cuda::int8_encode_f32(pointer<const float>(x), n, block, pointer<std::int8_t>(codes),
                                     pointer<float>(scales), pointer<std::uint32_t>(bad),
                                     pointer<CUstream_st>(stream)),
        "int8_encode_f32");
}

void int8_decode_f32(Address codes, Address scales, std::size_t n, std::size_t block, Address out,
                     Address stream) {
  py::gil_scoped_release nogil;  // touches no Python object
  check(pydec::cuda::int8_decode_f32(pointer<const std::int8_t>(codes), pointer<const float>(scales), n,
                                     block, pointer<float>(out), pointer<CUstream_st>(stream)),
        "int8_decode_f32");
}

}  // namespace

PYBIND11_MODULE(_native_cuda, m) {
  m.doc() = "CUDA kernels of pydec, with the bits of the CPU kernels.";
  m.attr("toolkit") = PYDEC_CUDA_TOOLKIT;
  m.def("device_count", device_count);
  m.def("mix_f32", mix_f32, py::arg("x"), py::arg("weights"), py::arg("out"), py::arg("n"),
        py::arg("stream"));
  m.def("int8_encode_f32", int8_encode_f32, py::arg("x"), py::arg("n"), py::arg("block"), py::arg("codes"),
        py::arg("scales"), py::arg("bad"), py::arg("stream"));
  m.def("int8_decode_f32", int8_decode_f32, py::arg("codes"), py::arg("scales"), py::arg("n"),
        py::arg("block"), py::arg("out"), py::arg("stream"));
}
