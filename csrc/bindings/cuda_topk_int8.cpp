#include "bindings/cuda_arrays.h"
#include "bindings/topk_int8_shape.h"
#include "pydec/cuda.h"
#include "pydec/gaps.h"
#include "pydec/topk_int8.h"

namespace pydec::bindings {
namespace {

constexpr std::size_t kResults = 3;
constexpr std::size_t kMostIndices = std::size_t{1} << 32;

void require_room(const Device<std::uint8_t>& out, std::size_t needed, const char* see) {
  if (out.output().size < needed) {
    throw py::value_error(out.name + " has " + std::to_string(out.size) + " bytes, a message may need " +
                          std::to_string(needed) + "; see " + see);
  }
}

void require_scales(const Device<std::uint8_t>& body) {
  if (reinterpret_cast<std::uintptr_t>(body.data) % alignof(float) != 0) {
    throw py::value_error(body.name + " must start at a multiple of 4 bytes, for its scales; copy it");
  }
}

void gaps_pack(py::handle indices_object, std::size_t n, py::handle out_object, py::handle results_object,
               py::handle work_object) {
  Place place;
  const Device<std::uint32_t> indices(place, indices_object, "indices");
  const Device<std::uint8_t> out(place, out_object, "out");
  const std::size_t k = indices.size;
  if (n > kMostIndices || k > n) {
    throw py::value_error("n must be in " + std::to_string(k) + "..4294967296, got " + std::to_string(n));
  }
  require_room(out, gap_groups(k) + gap_bound(n, k), "gaps_bound");
  require_apart(indices, out);
  const Device<std::uint8_t> work(place, work_object, "work");
  work.output().sized(cuda::gaps_work(k), "gaps_work(k)");
  auto* results = needed_counter(place, results_object, "results", kResults);
  place.run("gaps_pack", [&](cudaStream_t stream) {
    return cuda::gaps_pack(indices.data, k, n, out.data, results, work.data, stream);
  });
}

void gaps_unpack(py::handle data_object, std::size_t n, py::handle indices_object, py::handle faults_object,
                 py::handle work_object) {
  Place place;
  const Device<std::uint8_t> data(place, data_object, "data");
  const Device<std::uint32_t> indices(place, indices_object, "indices");
  require_apart(data, indices.output());
  if (n > kMostIndices) {
    throw py::value_error("n must be at most 4294967296, got " + std::to_string(n));
  }
  const Device<std::uint8_t> work(place, work_object, "work");
  work.output().sized(cuda::gaps_work(indices.size), "gaps_work(k)");
  auto* faults = needed_counter(place, faults_object, "faults");
  place.run("gaps_unpack", [&](cudaStream_t stream) {
    return cuda::gaps_unpack(data.data, data.size, n, indices.data, indices.size, faults, work.data, stream);
  });
}

void topk_int8_encode_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t k_option,
                          std::ptrdiff_t block_option, py::handle body_object, py::handle results_object,
                          py::handle work_object) {
  Place place;
  const Device<float> x(place, x_object, "x");
  const std::size_t k = checked_count(k_option, x.size);
  const std::size_t block = checked_block(block_option);
  const Device<std::uint8_t> body(place, body_object, "body");
  require_room(body, topk_int8_fixed(k, block) + gap_bound(x.size, k), "topk_int8_bound");
  require_scales(body);
  const Device<std::uint8_t> work(place, work_object, "work");
  work.output().sized(cuda::topk_int8_work(x.size, k), "topk_int8_work(n, k)");
  require_all_apart(x, body, work);
  float* residual = optional_pointer<float>(place, residual_object, "residual", x.size, "as x has");
  auto* results = needed_counter(place, results_object, "results", kResults);
  place.run("topk_int8_encode_f32", [&](cudaStream_t stream) {
    return cuda::topk_int8_encode_f32(x.data, residual, x.size, k, block, body.data, results, work.data,
                                      stream);
  });
}

/// A message for a vector of n elements.
cuda::TopkInt8Source source_of(const Device<std::uint8_t>& body, std::size_t n, std::ptrdiff_t k,
                               std::ptrdiff_t block, const Device<std::uint8_t>& work) {
  const cuda::TopkInt8Source source{body.data, body.size, checked_count(k, n), checked_block(block),
                                    work.data};
  require_scales(body);
  work.output().sized(cuda::gaps_work(source.k), "gaps_work(k)");
  return source;
}

void topk_int8_decode_f32(py::handle body_object, std::ptrdiff_t k, std::ptrdiff_t block,
                          py::handle out_object, py::handle faults_object, py::handle work_object) {
  Place place;
  const Device<std::uint8_t> body(place, body_object, "body");
  const Device<float> out(place, out_object, "out");
  const Device<std::uint8_t> work(place, work_object, "work");
  require_apart(body, out.output());
  const auto source = source_of(body, out.size, k, block, work);
  auto* faults = needed_counter(place, faults_object, "faults");
  place.run("topk_int8_decode_f32", [&](cudaStream_t stream) {
    return cuda::topk_int8_decode_f32(source, out.data, out.size, faults, stream);
  });
}

void topk_int8_accumulate_f32(const py::sequence& body_list, const py::sequence& counts,
                              const py::sequence& blocks, const py::sequence& weight_values,
                              py::handle out_object, py::handle faults_object, py::handle verdict_object,
                              const py::sequence& work_list) {
  const std::vector<float> weights = finite_weights(weight_values);
  const std::size_t m = weights.size();
  if (counts.size() != m || blocks.size() != m) {
    throw py::value_error("counts, blocks and weights must be equally many, got " +
                          std::to_string(counts.size()) + ", " + std::to_string(blocks.size()) + " and " +
                          std::to_string(m));
  }
  Place place;
  const Device<float> out(place, out_object, "out");
  const Devices<std::uint8_t> bodies(place, body_list, "bodies", m);
  const Devices<std::uint8_t> work(place, work_list, "work", m);
  out.output();
  std::vector<cuda::TopkInt8Source> sources(m);
  for (std::size_t i = 0; i < m; ++i) {
    require_apart(bodies.items[i], out);
    sources[i] = source_of(bodies.items[i], out.size, py::cast<std::ptrdiff_t>(py::object(counts[i])),
                           py::cast<std::ptrdiff_t>(py::object(blocks[i])), work.items[i]);
  }
  auto* faults = needed_counter(place, faults_object, "faults", m);
  auto* verdict = needed_counter(place, verdict_object, "verdict", 2);
  place.run("topk_int8_accumulate_f32", [&](cudaStream_t stream) {
    return cuda::topk_int8_accumulate_f32(sources.data(), weights.data(), m, out.data, out.size, faults,
                                          verdict, stream);
  });
}

}  // namespace

void bind_cuda_topk_int8(py::module_& m) {
  m.def("gaps_work", cuda::gaps_work, py::arg("k"));
  m.def("gaps_pack", gaps_pack, py::arg("indices"), py::arg("n"), py::arg("out"), py::arg("results"),
        py::arg("work"));
  m.def("gaps_unpack", gaps_unpack, py::arg("data"), py::arg("n"), py::arg("indices"), py::arg("faults"),
        py::arg("work"));
  m.def("topk_int8_work", cuda::topk_int8_work, py::arg("n"), py::arg("k"));
  m.def("topk_int8_encode_f32", topk_int8_encode_f32, py::arg("x"), py::arg("residual"), py::arg("k"),
        py::arg("block"), py::arg("body"), py::arg("results"), py::arg("work"));
  m.def("topk_int8_decode_f32", topk_int8_decode_f32, py::arg("body"), py::arg("k"), py::arg("block"),
        py::arg("out"), py::arg("faults"), py::arg("work"));
  m.def("topk_int8_accumulate_f32", topk_int8_accumulate_f32, py::arg("bodies"), py::arg("counts"),
        py::arg("blocks"), py::arg("weights"), py::arg("out"), py::arg("faults"), py::arg("verdict"),
        py::arg("work"));
}

}  // namespace pydec::bindings
