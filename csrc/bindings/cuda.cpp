// The optional CUDA module. Arguments are lists with an item for each bucket, which one launch handles;
// counters and workspaces are tensors that the caller has made, because nothing here allocates or waits.
#include "pydec/cuda.h"

#include "bindings/cuda_arrays.h"
#if defined(PYDEC_CUDA_EMULATE)
#include "cuda/emulate/faults.h"
#include "cuda/emulate/simt.h"
#endif

namespace {

int device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("cudaGetDeviceCount: ") + cudaGetErrorString(error));
  }
  return count;
}

}  // namespace

PYBIND11_MODULE(PYDEC_CUDA_MODULE, m) {
  m.doc() = "CUDA kernels of pydec, with the bits of the CPU kernels.";
  m.attr("toolkit") = PYDEC_CUDA_TOOLKIT;
  m.attr("max_mix") = pydec::cuda::kMaxMix;
  m.def("device_count", device_count);
  pydec::bindings::bind_cuda_demo(m);
  pydec::bindings::bind_cuda_mix(m);
  pydec::bindings::bind_cuda_powersgd(m);
  pydec::bindings::bind_cuda_quant(m);
  pydec::bindings::bind_cuda_randk(m);
  pydec::bindings::bind_cuda_reduce(m);
  pydec::bindings::bind_cuda_select(m);
  pydec::bindings::bind_cuda_topk_int8(m);
#if defined(PYDEC_CUDA_EMULATE)
  m.def("configure", pydec::simt::configure, pybind11::arg("multiprocessors"), pybind11::arg("seed"));
  m.def("run_fault", [](int number, pybind11::handle x_object) {
    pydec::bindings::Place place;
    const pydec::bindings::Device<float> x(place, x_object, "x");
    place.run("run_fault", [&](cudaStream_t) { return pydec::simt::run_fault(number, x.data); });
  });
#endif
}
