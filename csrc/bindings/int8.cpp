#include "pydec/int8.h"

#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

std::size_t checked_block(std::ptrdiff_t block) {
  if (block < 16 || block % 16 != 0) {
    throw py::value_error("block must be a positive multiple of 16 elements, got " + std::to_string(block));
  }
  return static_cast<std::size_t>(block);
}

std::size_t encode_f32(py::handle x_object, py::handle codes_object, py::handle scales_object,
                       std::ptrdiff_t block_option) {
  const std::size_t block = checked_block(block_option);
  const Array<float> x(x_object, "x");
  const Array<std::int8_t> codes(codes_object, "codes");
  const Array<float> scales(scales_object, "scales");
  codes.output().sized(x.size, "one for each element of x");
  scales.output().sized(blocks_of(x.size, block), "one for each block");
  require_all_apart(x, codes, scales);
  py::gil_scoped_release nogil;  // touches no Python object
  return active<Int8Kernels>().encode_f32(x.data, x.size, block, codes.data, scales.data);
}

void decode_f32(py::handle codes_object, py::handle scales_object, py::handle out_object,
                std::ptrdiff_t block_option) {
  const std::size_t block = checked_block(block_option);
  const Array<std::int8_t> codes(codes_object, "codes");
  const Array<float> scales(scales_object, "scales");
  const Array<float> out(out_object, "out");
  codes.sized(out.output().size, "as out has");
  scales.sized(blocks_of(out.size, block), "one for each block");
  require_apart(codes, out);
  require_apart(scales, out);
  py::gil_scoped_release nogil;  // touches no Python object
  active<Int8Kernels>().decode_f32(codes.data, scales.data, out.size, block, out.data);
}

void accumulate_f32(const py::sequence& codes, const py::sequence& scales, const py::sequence& weights,
                    py::handle out_object, std::ptrdiff_t block_option) {
  const std::size_t block = checked_block(block_option);
  const std::size_t m = codes.size();
  if (scales.size() != m || weights.size() != m) {
    throw py::value_error("codes, scales and weights must be equally many, got " + std::to_string(m) + ", " +
                          std::to_string(scales.size()) + " and " + std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  out.output();
  const py::tuple all_codes = items_of(codes);
  const py::tuple all_scales = items_of(scales);
  std::vector<Int8Message> messages(m);
  for (std::size_t k = 0; k < m; ++k) {
    const Array<std::int8_t> code(all_codes[k], item_name("codes", k));
    const Array<float> scale(all_scales[k], item_name("scales", k));
    code.sized(out.size, "as out has");
    scale.sized(blocks_of(out.size, block), "one for each block");
    require_apart(code, out);
    require_apart(scale, out);
    messages[k] = {code.data, scale.data, weight_of(py::object(weights[k]), item_name("weights", k))};
  }
  py::gil_scoped_release nogil;  // touches no Python object
  active<Int8Kernels>().accumulate_f32(messages.data(), m, out.size, block, out.data);
}

}  // namespace

void bind_int8(py::module_& m) {
  m.def("int8_encode_f32", encode_f32, py::arg("x"), py::arg("codes"), py::arg("scales"), py::arg("block"));
  m.def("int8_decode_f32", decode_f32, py::arg("codes"), py::arg("scales"), py::arg("out"), py::arg("block"));
  m.def("int8_accumulate_f32", accumulate_f32, py::arg("codes"), py::arg("scales"), py::arg("weights"),
        py::arg("out"), py::arg("block"));
}

}  // namespace pydec::bindings
