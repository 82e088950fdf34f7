#include "pydec/randk.h"

#include <vector>

#include "bindings/arrays.h"
#include "bindings/parallel.h"

namespace pydec::bindings {
namespace {

RandkShape checked_shape(std::size_t n, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key) {
  if (chunk < 1) throw py::value_error("chunk must be at least 1, got " + std::to_string(chunk));
  const RandkShape shape{n, static_cast<std::size_t>(chunk), static_cast<std::size_t>(k), key};
  if (k < 0 || shape.k > randk_chunks(shape)) {
    throw py::value_error("k must be in 0.." + std::to_string(randk_chunks(shape)) + ", got " +
                          std::to_string(k));
  }
  return shape;
}

/// What a stratum's choice touches at the least: a line, and its values.
std::size_t bytes_of(const RandkShape& shape) {
  return 64 + 3 * sizeof(float) * shape.chunk;
}

py::tuple key_f32(py::handle x_object, py::handle residual_object, std::uint64_t seed) {
  const Array<float> x(x_object, "x");
  F32* residual = residual_of(residual_object, x);
  const Shares shares = Shares::of_length(x.size, kRandkDigest, residual != nullptr ? 12 : 4);
  std::vector<std::uint64_t> digests(shares.size());
  std::size_t bad = 0;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    bad = shares.count([&, kernel = active<RandkKernels>().digest_f32](const Share& share) {
      std::size_t here = 0;
      digests[share.index] = kernel(x.data + share.first, shifted(residual, share), share.count,
                                    randk_start(seed, x.size, share.index), here);
      return here;
    });
  }
  return py::make_tuple(randk_key(digests.data(), digests.size()), bad);
}

std::size_t count(std::ptrdiff_t n, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key) {
  if (n < 0) throw py::value_error("n must not be negative, got " + std::to_string(n));
  return randk_count(checked_shape(static_cast<std::size_t>(n), chunk, k, key));
}

void gather_f32(py::handle x_object, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key, bool scaled,
                py::handle values_object) {
  const Array<float> x(x_object, "x");
  const Array<float> values(values_object, "values");
  const RandkShape shape = checked_shape(x.size, chunk, k, key);
  values.output().sized(randk_count(shape), "those that the key chooses");
  require_apart(x, values);
  const Shares shares(shape.k, bytes_of(shape));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<RandkKernels>().gather_f32](const Share& strata) {
    kernel(x.data, shape, {strata.first, strata.count}, scaled, values.data + strata.first * shape.chunk);
  });
}

void scatter_f32(py::handle values_object, std::ptrdiff_t chunk, std::ptrdiff_t k, std::uint64_t key,
                 double weight_value, py::handle out_object) {
  const Array<float> values(values_object, "values");
  const Array<float> out(out_object, "out");
  const RandkShape shape = checked_shape(out.output().size, chunk, k, key);
  values.sized(randk_count(shape), "those that the key chooses");
  require_apart(values, out);
  const float weight = finite_weight(weight_value, "weight");
  const Shares shares(shape.k, bytes_of(shape));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<RandkKernels>().scatter_f32](const Share& strata) {
    kernel(values.data + strata.first * shape.chunk, shape, {strata.first, strata.count}, weight, out.data);
  });
}

void accumulate_f32(const py::sequence& values, const py::sequence& chunks, const py::sequence& counts,
                    const py::sequence& keys, const py::sequence& weights, py::handle out_object) {
  const std::size_t m = values.size();
  if (chunks.size() != m || counts.size() != m || keys.size() != m || weights.size() != m) {
    throw py::value_error("values, chunks, counts, keys and weights must be equally many, got " +
                          std::to_string(m) + ", " + std::to_string(chunks.size()) + ", " +
                          std::to_string(counts.size()) + ", " + std::to_string(keys.size()) + " and " +
                          std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  out.output();
  const py::tuple items = items_of(values);
  std::vector<RandkMessage> messages(m);
  std::size_t entries = 0;
  for (std::size_t i = 0; i < m; ++i) {
    const Array<float> value(items[i], item_name("values", i));
    messages[i].shape = checked_shape(out.size, py::cast<std::ptrdiff_t>(py::object(chunks[i])),
                                      py::cast<std::ptrdiff_t>(py::object(counts[i])),
                                      py::cast<std::uint64_t>(py::object(keys[i])));
    value.sized(randk_count(messages[i].shape), "those that the key chooses");
    require_apart(value, out);
    messages[i].values = value.data;
    entries += value.size;
    messages[i].weight = weight_of(py::object(weights[i]), item_name("weights", i));
  }
  const Shares shares(out.size, sparse_bytes(out.size, entries));
  thread_local Room<RandkCursor> room;
  RandkCursor* const cursors = room.of(shares.threads() * m);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<RandkKernels>().accumulate_f32](const Share& share) {
    kernel(messages.data(), m, share.first, share.first + share.count, cursors + share.worker * m, out.data);
  });
}

}  // namespace

void bind_randk(Module& m) {
  m.def("randk_key_f32", key_f32, py::arg("x"), py::arg("residual"), py::arg("seed"));
  m.def("randk_count", count, py::arg("n"), py::arg("chunk"), py::arg("k"), py::arg("key"));
  m.def("randk_gather_f32", gather_f32, py::arg("x"), py::arg("chunk"), py::arg("k"), py::arg("key"),
        py::arg("scaled"), py::arg("values"));
  m.def("randk_scatter_f32", scatter_f32, py::arg("values"), py::arg("chunk"), py::arg("k"), py::arg("key"),
        py::arg("weight"), py::arg("out"));
  m.def("randk_accumulate_f32", accumulate_f32, py::arg("values"), py::arg("chunks"), py::arg("counts"),
        py::arg("keys"), py::arg("weights"), py::arg("out"));
}

}  // namespace pydec::bindings
