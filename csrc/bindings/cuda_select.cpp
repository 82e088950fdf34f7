#include "bindings/cuda_arrays.h"
#include "pydec/cuda.h"

namespace pydec::bindings {
namespace {

constexpr std::size_t kMostElements = 0xffffffffu;

void check_elements(std::size_t n) {
  if (n > kMostElements) {
    throw py::value_error("x has " + std::to_string(n) +
                          " elements, more than the 4294967295 that uint32 indices reach; split it");
  }
}

void topk_select_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t k_option,
                     py::handle indices_object, py::handle values_object, const py::object& bad_object,
                     py::handle work_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  check_elements(x.size);
  const std::size_t k = checked_option(k_option, 0, x.size, "k");
  const Device<std::uint32_t> indices(place, indices_object, "indices");
  const Device<float> values(place, values_object, "values");
  const Device<std::uint8_t> work(place, work_object, "work");
  indices.output().sized(k, "k");
  values.output().sized(k, "k");
  work.output().sized(cuda::topk_work(x.size, k), "topk_work(n, k)");
  require_all_apart(x, indices, values, work);
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  auto* bad = counter(place, bad_object, "bad");
  place.run("topk_select_f32", [&](cudaStream_t stream) {
    return cuda::topk_select_f32(x.data, residual, x.size, k, indices.data, values.data, bad, work.data,
                                 stream);
  });
}

std::size_t threshold_work(std::size_t n, std::size_t k, std::size_t least, std::size_t most) {
  return cuda::threshold_work(n, plan_threshold(n, k, least, most));
}

void threshold_select_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t k_option,
                          std::ptrdiff_t least_option, py::handle indices_object, py::handle values_object,
                          const py::object& found_object, const py::object& bad_object,
                          py::handle work_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  check_elements(x.size);
  const Device<std::uint32_t> indices(place, indices_object, "indices");
  const Device<float> values(place, values_object, "values");
  const std::size_t most = indices.output().size;
  values.output().sized(most, "as indices has");
  if (most > x.size) {
    throw py::value_error("indices must have at most the " + std::to_string(x.size) + " elements of x, got " +
                          std::to_string(most));
  }
  const std::size_t one = x.size == 0 ? 0 : 1;
  const std::size_t k = checked_option(k_option, one, most, "k");
  const std::size_t least = checked_option(least_option, one, k, "least");
  const Device<std::uint8_t> work(place, work_object, "work");
  work.output().sized(threshold_work(x.size, k, least, most), "threshold_work(n, k, least, most)");
  require_all_apart(x, indices, values, work);
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  const Device<unsigned long long> found(place, found_object, "found");
  found.output().sized(1, "how many are selected");
  auto* bad = counter(place, bad_object, "bad");
  place.run("threshold_select_f32", [&](cudaStream_t stream) {
    return cuda::threshold_select_f32(x.data, residual, x.size, plan_threshold(x.size, k, least, most),
                                      indices.data, values.data, found.data, bad, work.data, stream);
  });
}

void sparse_check(py::handle indices_object, std::size_t n, const py::object& faults_object) {
  Place place;
  const Device<std::uint32_t> indices(place, indices_object, "indices");
  auto* faults = counter(place, faults_object, "faults");
  if (faults == nullptr) throw py::type_error("faults must be a counter of one int64, got None");
  place.run("sparse_check", [&](cudaStream_t stream) {
    return cuda::scatter_check(indices.data, indices.size, n, faults, stream);
  });
}

void sparse_decode_f32(py::handle indices_object, py::handle values_object, py::handle out_object,
                       const py::object& faults_object) {
  Place place;
  const Device<std::uint32_t> indices(place, indices_object, "indices");
  const Device<float> values(place, values_object, "values");
  const Device<float> out(place, out_object, "out");
  values.sized(indices.size, "as indices has");
  require_all_apart(out.output(), indices, values);
  auto* faults = counter(place, faults_object, "faults");
  if (faults == nullptr) throw py::type_error("faults must be a counter of one int64, got None");
  place.run("sparse_decode_f32", [&](cudaStream_t stream) {
    const cudaError_t error = cuda::scatter_check(indices.data, indices.size, out.size, faults, stream);
    if (error != cudaSuccess) return error;
    return cuda::sparse_decode_f32(indices.data, values.data, indices.size, out.data, out.size, faults,
                                   stream);
  });
}

/// Adds messages one after the other, none if an index of any is at fault.
void sparse_accumulate_f32(const py::sequence& indices_list, const py::sequence& values_list,
                           const py::sequence& weight_values, py::handle out_object,
                           const py::object& faults_object) {
  const std::vector<float> weights = finite_weights(weight_values);
  const std::size_t m = weights.size();
  Place place;
  const Device<float> out(place, out_object, "out");
  const Devices<std::uint32_t> indices(place, indices_list, "indices", m);
  const Devices<float> values(place, values_list, "values", m);
  values.sized([&indices](std::size_t k) { return indices.items[k].size; }, "as indices has");
  out.output();
  for (std::size_t k = 0; k < m; ++k) {
    require_apart(indices.items[k], out);
    require_apart(values.items[k], out);
  }
  auto* faults = counter(place, faults_object, "faults");
  if (faults == nullptr) throw py::type_error("faults must be a counter of one int64, got None");
  place.run("sparse_accumulate_f32", [&](cudaStream_t stream) {
    cudaError_t error = cudaSuccess;
    for (std::size_t k = 0; k < m && error == cudaSuccess; ++k) {
      error = cuda::scatter_check(indices.data[k], indices.items[k].size, out.size, faults, stream);
    }
    for (std::size_t k = 0; k < m && error == cudaSuccess; ++k) {
      error = cuda::scatter_f32(indices.data[k], values.data[k], indices.items[k].size, weights[k], out.data,
                                faults, stream);
    }
    return error;
  });
}

BlockTopkShape block_shape(std::size_t n, std::ptrdiff_t block, std::ptrdiff_t k) {
  const std::size_t length = checked_option(block, 1, kMaxTopkBlock, "block");
  return {n, length, checked_option(k, 1, length, "k")};
}

std::size_t entries_of(const BlockTopkShape& shape) {
  return shape.n / shape.block * shape.k + block_topk_count(shape.k, shape.block, shape.n % shape.block);
}

constexpr const char* kEntriesWhy = "the entries of all blocks";

void block_topk_select_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t block,
                           std::ptrdiff_t k, py::handle indices_object, py::handle values_object,
                           const py::object& bad_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const BlockTopkShape shape = block_shape(x.size, block, k);
  const Device<std::uint16_t> indices(place, indices_object, "indices");
  const Device<float> values(place, values_object, "values");
  indices.output().sized(entries_of(shape), kEntriesWhy);
  values.output().sized(entries_of(shape), kEntriesWhy);
  require_all_apart(x, indices, values);
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  auto* bad = counter(place, bad_object, "bad");
  place.run("block_topk_select_f32", [&](cudaStream_t stream) {
    return cuda::block_topk_select_f32(x.data, residual, shape, indices.data, values.data, bad, stream);
  });
}

void block_topk_check(py::handle indices_object, std::size_t n, std::ptrdiff_t block, std::ptrdiff_t k,
                      const py::object& first_object) {
  const BlockTopkShape shape = block_shape(n, block, k);
  Place place;
  const Device<std::uint16_t> indices(place, indices_object, "indices");
  indices.sized(entries_of(shape), kEntriesWhy);
  auto* first = counter(place, first_object, "first");
  if (first == nullptr) throw py::type_error("first must be one int64, got None");
  place.run("block_topk_check",
            [&](cudaStream_t stream) { return cuda::block_topk_check(indices.data, shape, first, stream); });
}

void block_topk_decode_f32(py::handle indices_object, py::handle values_object, std::ptrdiff_t block,
                           std::ptrdiff_t k, py::handle out_object, const py::object& first_object) {
  Place place;
  const Device<float> out(place, out_object, "out");
  const BlockTopkShape shape = block_shape(out.output().size, block, k);
  const Device<std::uint16_t> indices(place, indices_object, "indices");
  const Device<float> values(place, values_object, "values");
  indices.sized(entries_of(shape), kEntriesWhy);
  values.sized(entries_of(shape), kEntriesWhy);
  require_all_apart(out, indices, values);
  auto* first = counter(place, first_object, "first");
  if (first == nullptr) throw py::type_error("first must be one int64, got None");
  place.run("block_topk_decode_f32", [&](cudaStream_t stream) {
    const cudaError_t error = cuda::block_topk_check(indices.data, shape, first, stream);
    if (error != cudaSuccess) return error;
    return cuda::block_topk_decode_f32(indices.data, values.data, shape, out.data, first, stream);
  });
}

/// Nothing is done where a block is at fault.
void block_topk_accumulate_f32(const py::sequence& indices_list, const py::sequence& values_list,
                               const py::sequence& weight_values, std::ptrdiff_t block, std::ptrdiff_t k,
                               py::handle out_object, const py::object& first_object) {
  const std::vector<float> weights = finite_weights(weight_values);
  const std::size_t m = weights.size();
  Place place;
  const Device<float> out(place, out_object, "out");
  const BlockTopkShape shape = block_shape(out.output().size, block, k);
  const Devices<std::uint16_t> indices(place, indices_list, "indices", m);
  const Devices<float> values(place, values_list, "values", m);
  indices.sized([&shape](std::size_t) { return entries_of(shape); }, kEntriesWhy);
  values.sized([&shape](std::size_t) { return entries_of(shape); }, kEntriesWhy);
  for (std::size_t j = 0; j < m; ++j) {
    require_apart(indices.items[j], out);
    require_apart(values.items[j], out);
  }
  auto* first = counter(place, first_object, "first");
  if (first == nullptr) throw py::type_error("first must be one int64, got None");
  place.run("block_topk_accumulate_f32", [&](cudaStream_t stream) {
    cudaError_t error = cudaSuccess;
    for (std::size_t j = 0; j < m && error == cudaSuccess; ++j) {
      error = cuda::block_topk_check(indices.data[j], shape, first, stream);
    }
    if (error != cudaSuccess) return error;
    return cuda::block_topk_accumulate_f32(indices.data.data(), values.data.data(), weights.data(), m, shape,
                                           out.data, first, stream);
  });
}

}  // namespace

void bind_cuda_select(py::module_& m) {
  m.def("topk_work", cuda::topk_work, py::arg("n"), py::arg("k"));
  m.def("topk_select_f32", topk_select_f32, py::arg("x"), py::arg("residual"), py::arg("k"),
        py::arg("indices"), py::arg("values"), py::arg("bad"), py::arg("work"));
  m.def("threshold_work", threshold_work, py::arg("n"), py::arg("k"), py::arg("least"), py::arg("most"));
  m.def("threshold_select_f32", threshold_select_f32, py::arg("x"), py::arg("residual"), py::arg("k"),
        py::arg("least"), py::arg("indices"), py::arg("values"), py::arg("found"), py::arg("bad"),
        py::arg("work"));
  m.def("sparse_check", sparse_check, py::arg("indices"), py::arg("n"), py::arg("faults"));
  m.def("sparse_decode_f32", sparse_decode_f32, py::arg("indices"), py::arg("values"), py::arg("out"),
        py::arg("faults"));
  m.def("sparse_accumulate_f32", sparse_accumulate_f32, py::arg("indices"), py::arg("values"),
        py::arg("weights"), py::arg("out"), py::arg("faults"));
  m.def("block_topk_select_f32", block_topk_select_f32, py::arg("x"), py::arg("residual"), py::arg("block"),
        py::arg("k"), py::arg("indices"), py::arg("values"), py::arg("bad"));
  m.def("block_topk_check", block_topk_check, py::arg("indices"), py::arg("n"), py::arg("block"),
        py::arg("k"), py::arg("first"));
  m.def("block_topk_decode_f32", block_topk_decode_f32, py::arg("indices"), py::arg("values"),
        py::arg("block"), py::arg("k"), py::arg("out"), py::arg("first"));
  m.def("block_topk_accumulate_f32", block_topk_accumulate_f32, py::arg("indices"), py::arg("values"),
        py::arg("weights"), py::arg("block"), py::arg("k"), py::arg("out"), py::arg("first"));
}

}  // namespace pydec::bindings
