#include "bindings/cuda_arrays.h"
#include "bindings/demo_shape.h"
#include "pydec/cuda.h"

namespace pydec::bindings {
namespace {

constexpr const char* kRecordsWhy = "one record for each tile";

void demo_encode_f32(py::handle x_object, py::handle residual_object, py::handle records_object,
                     std::ptrdiff_t side, std::ptrdiff_t k, const std::string& values, double beta_value,
                     const py::object& bad_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const Device<std::uint8_t> records(place, records_object, "records");
  const DemoShape shape = checked_shape(x.size, side, k, values);
  records.output().sized(bytes_of(shape), kRecordsWhy);
  require_apart(x, records);
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  const float beta = finite_weight(beta_value, "beta");
  auto* bad = needed_counter(place, bad_object, "bad", 2);
  place.run("demo_encode_f32", [&](cudaStream_t stream) {
    return cuda::demo_encode_f32(x.data, residual, beta, shape, records.data, bad, stream);
  });
}

void demo_check(py::handle records_object, std::ptrdiff_t n, std::ptrdiff_t side, std::ptrdiff_t k,
                const std::string& values, py::handle first_object) {
  if (n < 0) throw py::value_error("n must not be negative, got " + std::to_string(n));
  const DemoShape shape = checked_shape(static_cast<std::size_t>(n), side, k, values);
  Place place;
  const Device<std::uint8_t> records(place, records_object, "records");
  records.sized(bytes_of(shape), kRecordsWhy);
  auto* first = needed_counter(place, first_object, "first");
  place.run("demo_check",
            [&](cudaStream_t stream) { return cuda::demo_check(records.data, shape, first, stream); });
}

void demo_decode_f32(py::handle records_object, py::handle out_object, std::ptrdiff_t side, std::ptrdiff_t k,
                     const std::string& values, py::handle first_object) {
  Place place;
  const Device<std::uint8_t> records(place, records_object, "records");
  const Device<float> out(place, out_object, "out");
  const DemoShape shape = checked_shape(out.output().size, side, k, values);
  records.sized(bytes_of(shape), kRecordsWhy);
  require_apart(records, out);
  auto* first = needed_counter(place, first_object, "first");
  place.run("demo_decode_f32", [&](cudaStream_t stream) {
    const cudaError_t error = cuda::demo_check(records.data, shape, first, stream);
    if (error != cudaSuccess) return error;
    return cuda::demo_decode_f32(records.data, shape, out.data, first, stream);
  });
}

/// Nothing is done where a record of any message is at fault.
void demo_accumulate_f32(const py::sequence& records_list, const py::sequence& weight_values,
                         py::handle out_object, std::ptrdiff_t side, std::ptrdiff_t k,
                         const std::string& values, py::handle first_object) {
  const std::vector<float> weights = finite_weights(weight_values);
  const std::size_t m = weights.size();
  Place place;
  const Device<float> out(place, out_object, "out");
  const DemoShape shape = checked_shape(out.output().size, side, k, values);
  const Devices<std::uint8_t> records(place, records_list, "records", m);
  records.sized([&shape](std::size_t) { return bytes_of(shape); }, kRecordsWhy);
  for (const auto& item : records.items) require_apart(item, out);
  auto* first = needed_counter(place, first_object, "first");
  place.run("demo_accumulate_f32", [&](cudaStream_t stream) {
    cudaError_t error = cudaSuccess;
    for (std::size_t j = 0; j < m && error == cudaSuccess; ++j) {
      error = cuda::demo_check(records.data[j], shape, first, stream);
    }
    if (error != cudaSuccess) return error;
    return cuda::demo_accumulate_f32(records.data.data(), weights.data(), m, shape, out.data, first, stream);
  });
}

}  // namespace

void bind_cuda_demo(py::module_& m) {
  m.def("demo_encode_f32", demo_encode_f32, py::arg("x"), py::arg("residual"), py::arg("records"),
        py::arg("side"), py::arg("k"), py::arg("values"), py::arg("beta"), py::arg("bad"));
  m.def("demo_check", demo_check, py::arg("records"), py::arg("n"), py::arg("side"), py::arg("k"),
        py::arg("values"), py::arg("first"));
  m.def("demo_decode_f32", demo_decode_f32, py::arg("records"), py::arg("out"), py::arg("side"), py::arg("k"),
        py::arg("values"), py::arg("first"));
  m.def("demo_accumulate_f32", demo_accumulate_f32, py::arg("records"), py::arg("weights"), py::arg("out"),
        py::arg("side"), py::arg("k"), py::arg("values"), py::arg("first"));
}

}  // namespace pydec::bindings
