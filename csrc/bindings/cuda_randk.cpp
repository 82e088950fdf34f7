#include "bindings/cuda_arrays.h"
#include "pydec/cuda.h"

namespace pydec::bindings {
namespace {

void randk_key_f32(py::handle x_object, py::handle residual_object, std::uint64_t seed, py::handle key_object,
                   const py::object& bad_object, py::handle work_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  const Device<unsigned long long> key(place, key_object, "key");
  key.output().sized(1, "the key");
  auto* bad = counter(place, bad_object, "bad");
  auto* work = needed_counter(place, work_object, "work", cuda::randk_work(x.size));
  place.run("randk_key_f32", [&](cudaStream_t stream) {
    return cuda::randk_key_f32(x.data, residual, x.size, seed, key.data, bad, work, stream);
  });
}

/// A shape whose key is a number, or one on the GPU.
struct Shape {
  Shape(Place& place, std::size_t n, std::ptrdiff_t chunk, std::ptrdiff_t k, const py::object& key_object)
      : shape{n, checked_option(chunk, 1, ~std::size_t{0} >> 1, "chunk"), 0, 0} {
    shape.k = checked_option(k, 0, randk_chunks(shape), "k");
    if (py::isinstance<py::int_>(key_object)) {
      shape.key = py::cast<std::uint64_t>(key_object);
    } else {
      const Device<unsigned long long> array(place, key_object, "key");
      array.sized(1, "the key");
      key = array.data;
    }
  }

  /// Values of the chosen elements: with a key on the GPU, room for as many as any key chooses.
  std::size_t values() const { return key != nullptr ? shape.k * shape.chunk : randk_count(shape); }

  RandkShape shape;
  const unsigned long long* key = nullptr;
};

void randk_gather_f32(py::handle x_object, std::ptrdiff_t chunk, std::ptrdiff_t k, const py::object& key,
                      bool scaled, py::handle values_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const Shape shape(place, x.size, chunk, k, key);
  const Device<float> values(place, values_object, "values");
  values.output().sized(shape.values(), "the chosen elements");
  require_apart(x, values);
  place.run("randk_gather_f32", [&](cudaStream_t stream) {
    return cuda::randk_gather_f32(x.data, shape.shape, shape.key, scaled, values.data, stream);
  });
}

void randk_scatter_f32(py::handle values_object, std::ptrdiff_t chunk, std::ptrdiff_t k,
                       const py::object& key, double weight_value, py::handle out_object) {
  const float weight = finite_weight(weight_value, "weight");
  Place place;
  const Device<float> out(place, out_object, "out");
  const Shape shape(place, out.output().size, chunk, k, key);
  const Device<float> values(place, values_object, "values");
  values.sized(shape.values(), "the chosen elements");
  require_apart(values, out);
  place.run("randk_scatter_f32", [&](cudaStream_t stream) {
    return cuda::randk_scatter_f32(values.data, shape.shape, shape.key, weight, out.data, stream);
  });
}

/// Messages of any chunks and keys, one after the other.
void randk_accumulate_f32(const py::sequence& values_list, const py::sequence& chunks,
                          const py::sequence& counts, const py::sequence& keys,
                          const py::sequence& weight_values, py::handle out_object) {
  const std::vector<float> weights = finite_weights(weight_values);
  const std::size_t m = weights.size();
  if (chunks.size() != m || counts.size() != m || keys.size() != m) {
    throw py::value_error("chunks, counts, keys and weights must be equally many, got " +
                          std::to_string(chunks.size()) + ", " + std::to_string(counts.size()) + ", " +
                          std::to_string(keys.size()) + " and " + std::to_string(m));
  }
  Place place;
  const Device<float> out(place, out_object, "out");
  const Devices<float> values(place, values_list, "values", m);
  out.output();
  std::vector<cuda::RandkTerm> terms(m);
  for (std::size_t k = 0; k < m; ++k) {
    const Shape shape(place, out.size, py::cast<std::ptrdiff_t>(py::object(chunks[k])),
                      py::cast<std::ptrdiff_t>(py::object(counts[k])), py::object(keys[k]));
    values.items[k].sized(shape.values(), "the chosen elements");
    require_apart(values.items[k], out);
    terms[k] = {values.data[k], shape.shape, shape.key, weights[k]};
  }
  place.run("randk_accumulate_f32", [&](cudaStream_t stream) {
    return cuda::randk_accumulate_f32(terms.data(), m, out.data, stream);
  });
}

}  // namespace

void bind_cuda_randk(py::module_& m) {
  m.def("randk_work", cuda::randk_work, py::arg("n"));
  m.def("randk_key_f32", randk_key_f32, py::arg("x"), py::arg("residual"), py::arg("seed"), py::arg("key"),
        py::arg("bad"), py::arg("work"));
  m.def("randk_gather_f32", randk_gather_f32, py::arg("x"), py::arg("chunk"), py::arg("k"), py::arg("key"),
        py::arg("scaled"), py::arg("values"));
  m.def("randk_scatter_f32", randk_scatter_f32, py::arg("values"), py::arg("chunk"), py::arg("k"),
        py::arg("key"), py::arg("weight"), py::arg("out"));
  m.def("randk_accumulate_f32", randk_accumulate_f32, py::arg("values"), py::arg("chunks"), py::arg("counts"),
        py::arg("keys"), py::arg("weights"), py::arg("out"));
}

}  // namespace pydec::bindings
