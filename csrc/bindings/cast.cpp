#include "pydec/cast.h"

#include <vector>

#include "bindings/arrays.h"
#include "bindings/parallel.h"

namespace pydec::bindings {
namespace {

int half_named(const std::string& name) {
  if (name == "bf16") return static_cast<int>(Half::bf16);
  if (name == "fp16") return static_cast<int>(Half::fp16);
  throw py::value_error("half must be bf16 or fp16, got '" + name + "'");
}

/// Codes as integers, or as elements of the type that they stand for.
struct Codes : Array<std::uint16_t> {
  Codes(py::handle object, const Name& argument, int half)
      : Array(object, argument, dlpack::kCpu,
              half == static_cast<int>(Half::bf16) ? Dtype::bfloat16 : Dtype::float16) {}
};

std::size_t encode_f32(py::handle x_object, py::handle residual_object, py::handle codes_object,
                       const std::string& half) {
  const int index = half_named(half);
  const Array<float> x(x_object, "x");
  const Codes codes(codes_object, "codes", index);
  codes.output().sized(x.size, "as x has");
  require_apart(x, codes);
  F32* residual = residual_of(residual_object, x, codes);
  const Shares shares(x.size, residual != nullptr ? 14 : 6);
  py::gil_scoped_release nogil;  // touches no Python object
  return shares.count([&, kernel = active<CastKernels>().encode_f32[index]](const Share& share) {
    return kernel(x.data + share.first, shifted(residual, share), share.count, codes.data + share.first);
  });
}

void decode_f32(py::handle codes_object, py::handle out_object, const std::string& half) {
  const int index = half_named(half);
  const Codes codes(codes_object, "codes", index);
  const Array<float> out(out_object, "out");
  codes.sized(out.output().size, "as out has");
  require_apart(codes, out);
  const Shares shares(out.size, 6);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<CastKernels>().decode_f32[index]](const Share& share) {
    kernel(codes.data + share.first, share.count, out.data + share.first);
  });
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
  const py::tuple items = items_of(codes);
  std::vector<HalfMessage> messages(m);
  for (std::size_t k = 0; k < m; ++k) {
    const Codes code(items[k], item_name("codes", k), index);
    code.sized(out.size, "as out has");
    require_apart(code, out);
    messages[k] = {code.data, weight_of(py::object(weights[k]), item_name("weights", k))};
  }
  const Shares shares(out.size, 8 + 2 * m);
  Rows<HalfMessage> rows(shares, m);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<CastKernels>().accumulate_f32[index]](const Share& share) {
    HalfMessage* part = rows[share.worker];
    for (std::size_t k = 0; k < m; ++k) part[k] = {messages[k].codes + share.first, messages[k].weight};
    kernel(part, m, share.count, out.data + share.first);
  });
}

std::size_t count_nonfinite(py::handle codes_object, const std::string& half) {
  const int index = half_named(half);
  const Codes codes(codes_object, "codes", index);
  const Shares shares(codes.size, 2);
  py::gil_scoped_release nogil;  // touches no Python object
  return shares.count([&, kernel = active<CastKernels>().count_nonfinite[index]](const Share& share) {
    return kernel(codes.data + share.first, share.count);
  });
}

}  // namespace

void bind_cast(Module& m) {
  m.def("cast_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("codes"), py::arg("half"));
  m.def("cast_decode_f32", decode_f32, py::arg("codes"), py::arg("out"), py::arg("half"));
  m.def("cast_accumulate_f32", accumulate_f32, py::arg("codes"), py::arg("weights"), py::arg("out"),
        py::arg("half"));
  m.def("cast_count_nonfinite", count_nonfinite, py::arg("codes"), py::arg("half"));
}

}  // namespace pydec::bindings
