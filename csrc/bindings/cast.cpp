#include "pydec/cast.h"

#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

int half_named(const std::string& name) {
  if (name == "bf16") return static_cast<int>(Half::bf16);
  if (name == "fp16") return static_cast<int>(Half::fp16);
  throw py::value_error("half must be bf16 or fp16, got '" + name + "'");
}

std::size_t encode_f32(py::handle x_object, py::handle residual_object, py::handle codes_object,
                       const std::string& half) {
  const int index = half_named(half);
  const Array<float> x(x_object, "x");
  const Array<std::uint16_t> codes(codes_object, "codes");
  codes.output().sized(x.size, "as x has");
  require_apart(x, codes);
  F32* residual_data = nullptr;
  if (!residual_object.is_none()) {
    const Array<float> residual(residual_object, "residual");
    residual.output().sized(x.size, "as x has");
    require_apart(x, residual);
    require_apart(residual, codes);
    residual_data = residual.data;
  }
  py::gil_scoped_release nogil;  // touches no Python object
  return active<CastKernels>().encode_f32[index](x.data, residual_data, x.size, codes.data);
}

void decode_f32(py::handle codes_object, py::handle out_object, const std::string& half) {
  const int index = half_named(half);
  const Array<std::uint16_t> codes(codes_object, "codes");
  const Array<float> out(out_object, "out");
  codes.sized(out.output().size, "as out has");
  require_apart(codes, out);
  py::gil_scoped_release nogil;  // touches no Python object
  active<CastKernels>().decode_f32[index](codes.data, out.size, out.data);
}

void accumulate_f32(const py::sequence& codes, const py::sequence& weights, py::handle out_object,
                    const std::string& half) {
  const int index = half_named(half);
  const std::size_t m = codes.size();
  if (weights.size() != m) {
    throw py::value_error("codes and weights must be equally many, got " + std::to_string(m) + " and " +
                          std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  out.output();
  std::vector<HalfMessage> messages(m);
  for (std::size_t k = 0; k < m; ++k) {
    const py::object item = codes[k];
    const Array<std::uint16_t> code(item, item_name("codes", k));
    code.sized(out.size, "as out has");
    require_apart(code, out);
    messages[k] = {code.data,
                   finite_weight(py::cast<double>(py::object(weights[k])), item_name("weights", k))};
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<CastKernels>().accumulate_f32[index](messages.data(), m, out.size, out.data);
}

std::size_t count_nonfinite(py::handle codes_object, const std::string& half) {
  const int index = half_named(half);
  const Array<std::uint16_t> codes(codes_object, "codes");
  py::gil_scoped_release nogil;  // touches no Python object
  return active<CastKernels>().count_nonfinite[index](codes.data, codes.size);
}

}  // namespace

void bind_cast(py::module_& m) {
  m.def("cast_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("codes"), py::arg("half"));
  m.def("cast_decode_f32", decode_f32, py::arg("codes"), py::arg("out"), py::arg("half"));
  m.def("cast_accumulate_f32", accumulate_f32, py::arg("codes"), py::arg("weights"), py::arg("out"),
        py::arg("half"));
  m.def("cast_count_nonfinite", count_nonfinite, py::arg("codes"), py::arg("half"));
}

}  // namespace pydec::bindings
