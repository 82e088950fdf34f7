#include "pydec/sparse.h"

#include <vector>

#include "bindings/arrays.h"
#include "bindings/parallel.h"

namespace pydec::bindings {
namespace {

/// Without the GIL.
SparseCheck check_shares(const Array<std::uint32_t>& indices, const Array<float>& values) {
  std::atomic<bool> increasing{true};
  const Shares shares(indices.size, sizeof(float) + sizeof(std::uint32_t));
  const std::size_t nonfinite = shares.count([&, kernel = active<SparseKernels>().check](const Share& share) {
    const U32* from = indices.data + share.first;
    const SparseCheck found = kernel(from, values.data + share.first, share.count);
    const bool behind = share.first == 0 || share.count == 0 || from[0] > from[-1];
    if (!found.increasing || !behind) increasing.store(false, std::memory_order_relaxed);
    return found.nonfinite;
  });
  return {increasing.load(std::memory_order_relaxed), nonfinite};
}

py::tuple check(py::handle indices_object, py::handle values_object) {
  const Array<std::uint32_t> indices(indices_object, "indices");
  const Array<float> values(values_object, "values");
  values.sized(indices.size, "as indices has");
  SparseCheck found{};
  {
    py::gil_scoped_release nogil;  // touches no Python object
    found = check_shares(indices, values);
  }
  return py::make_tuple(found.increasing, found.nonfinite);
}

/// Raises IndexError unless the indices increase and are below n.
void require_places(const Array<std::uint32_t>& indices, const Array<float>& values, std::size_t n) {
  if (indices.size == 0) return;
  bool increasing = false;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    increasing = check_shares(indices, values).increasing;
  }
  if (!increasing) throw py::index_error(indices.name + " must increase; out is unchanged");
  const std::uint32_t last = indices.at(indices.size - 1);
  if (last >= n) {
    throw py::index_error(indices.name + " holds " + std::to_string(last) + ", but out has " +
                          std::to_string(n) + " elements; out is unchanged");
  }
}

void decode_f32(py::handle indices_object, py::handle values_object, py::handle out_object) {
  const Array<std::uint32_t> indices(indices_object, "indices");
  const Array<float> values(values_object, "values");
  const Array<float> out(out_object, "out");
  values.sized(indices.size, "as indices has");
  require_apart(indices, out.output());
  require_apart(values, out);
  require_places(indices, values, out.size);
  const Shares shares(out.size, sizeof(float));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<SparseKernels>().decode_f32](const Share& share) {
    kernel(indices.data, values.data, indices.size, share.first, share.first + share.count, out.data);
  });
}

void accumulate_f32(const py::sequence& indices, const py::sequence& values, const py::sequence& weights,
                    py::handle out_object) {
  const std::size_t m = indices.size();
  if (values.size() != m || weights.size() != m) {
    throw py::value_error("indices, values and weights must be equally many, got " + std::to_string(m) +
                          ", " + std::to_string(values.size()) + " and " + std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  out.output();
  const py::tuple all_indices = items_of(indices);
  const py::tuple all_values = items_of(values);
  std::vector<SparseMessage> messages(m);
  std::size_t entries = 0;
  for (std::size_t k = 0; k < m; ++k) {
    const Array<std::uint32_t> index(all_indices[k], item_name("indices", k));
    const Array<float> value(all_values[k], item_name("values", k));
    value.sized(index.size, "as its indices has");
    require_apart(index, out);
    require_apart(value, out);
    const float weight = weight_of(py::object(weights[k]), item_name("weights", k));
    require_places(index, value, out.size);
    messages[k] = {index.data, value.data, index.size, weight};
    entries += index.size;
  }
  const Shares shares(out.size, sparse_bytes(out.size, entries));
  Rows<std::size_t> places(shares, m);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<SparseKernels>().accumulate_f32](const Share& share) {
    kernel(messages.data(), m, share.first, share.first + share.count, places[share.worker], out.data);
  });
}

}  // namespace

void bind_sparse(Module& m) {
  m.def("sparse_check", check, py::arg("indices"), py::arg("values"));
  m.def("sparse_decode_f32", decode_f32, py::arg("indices"), py::arg("values"), py::arg("out"));
  m.def("sparse_accumulate_f32", accumulate_f32, py::arg("indices"), py::arg("values"), py::arg("weights"),
        py::arg("out"));
}

}  // namespace pydec::bindings
