#include "pydec/topk_int8.h"

#include <vector>

#include "bindings/candidates.h"
#include "bindings/topk_int8_shape.h"

namespace pydec::bindings {
namespace {

/// Memory of the calling thread, kept from call to call.
template <class T>
T* memory_of(std::size_t n) {
  thread_local Room<T> memory;
  return memory.of(n);
}

std::size_t bound(std::size_t n, std::ptrdiff_t k_option, std::ptrdiff_t block_option) {
  const std::size_t k = checked_count(k_option, n);
  return topk_int8_fixed(k, checked_block(block_option)) + gap_bound(n, k);
}

py::tuple encode_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t k_option,
                     std::ptrdiff_t block_option, py::handle body_object) {
  const Array<float> x(x_object, "x");
  const std::size_t k = checked_count(k_option, x.size);
  const std::size_t block = checked_block(block_option);
  const Array<std::uint8_t> body(body_object, "body");
  const std::size_t fixed = topk_int8_fixed(k, block);
  if (body.output().size < fixed + gap_bound(x.size, k)) {
    throw py::value_error("body has " + std::to_string(body.size) + " bytes, a message may need " +
                          std::to_string(fixed + gap_bound(x.size, k)) + "; see topk_int8_bound");
  }
  require_apart(x, body);
  F32* const residual = residual_of(residual_object, x, body);
  const TopkPlan plan = plan_topk(x.size, k);
  std::uint32_t* const indices = memory_of<std::uint32_t>(plan.room + k);
  float* const values = memory_of<float>(plan.room + k);
  const TopkWorkspace workspace{indices, values};
  const TopkInt8Parts parts = topk_int8_parts(body.data, k, block);
  const TopkInt8Kernels& kernels = active<TopkInt8Kernels>();
  SharedCandidates shared(x.size, plan.capacity);
  TopkInt8Encoded encoded{};
  {
    py::gil_scoped_release nogil;  // touches no Python object
    if (shared.several()) {
      const std::uint32_t low =
          active<TopkKernels>().bracket_f32(x.data, residual, x.size, plan, workspace.values).low;
      const TopkCandidates candidates = shared.collect(x.data, residual, {low, kAboveAll}, workspace);
      encoded = kernels.finish_f32(x.data, residual, x.size, k, block, candidates, workspace,
                                   indices + plan.room, values + plan.room, parts);
    } else {
      encoded = kernels.encode_f32(x.data, residual, x.size, k, block, plan, workspace, indices + plan.room,
                                   values + plan.room, parts);
    }
  }
  return py::make_tuple(fixed + encoded.bytes, encoded.nonfinite, encoded.too_large);
}

/// Faults of the message in `body`; fills message.parts and, from `starts` on, one start for each group.
unsigned check(const Array<std::uint8_t>& body, std::size_t n, TopkInt8Message& message, GapStart* starts) {
  const std::size_t fixed = topk_int8_fixed(message.k, message.block);
  if (body.size < fixed) return kBadGapLength;
  message.parts = topk_int8_parts(body.data, message.k, message.block);
  message.starts = starts;
  py::gil_scoped_release nogil;  // touches no Python object
  return active<GapKernels>().check(message.parts.widths, message.parts.packed, body.size - fixed, message.k,
                                    n, starts) |
         active<TopkInt8Kernels>().check(message.parts.scales, message.parts.codes, message.k, message.block);
}

unsigned decode_f32(py::handle body_object, std::ptrdiff_t k_option, std::ptrdiff_t block_option,
                    py::handle out_object) {
  const Array<std::uint8_t> body(body_object, "body");
  const Array<float> out(out_object, "out");
  require_apart(body, out.output());
  TopkInt8Message message{};
  message.k = checked_count(k_option, out.size);
  message.block = checked_block(block_option);
  // The message has a byte for each entry, so it bounds what is allocated for it.
  if (body.size < message.k) return kBadGapLength;
  const unsigned faults = check(body, out.size, message, memory_of<GapStart>(gap_groups(message.k)));
  if (faults != 0) return faults;
  const Shares shares(out.size, sizeof(float));
  TopkInt8Cursor* const cursors = memory_of<TopkInt8Cursor>(shares.threads());
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<TopkInt8Kernels>().decode_f32](const Share& share) {
    kernel(message, share.first, share.first + share.count, cursors[share.worker], out.data);
  });
  return 0;
}

py::tuple accumulate_f32(const py::sequence& bodies, const py::sequence& counts, const py::sequence& blocks,
                         const py::sequence& weights, py::handle out_object) {
  const std::size_t m = bodies.size();
  if (counts.size() != m || blocks.size() != m || weights.size() != m) {
    throw py::value_error("bodies, counts, blocks and weights must be equally many, got " +
                          std::to_string(m) + ", " + std::to_string(counts.size()) + ", " +
                          std::to_string(blocks.size()) + " and " + std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  out.output();
  const py::tuple items = items_of(bodies);
  std::vector<Array<std::uint8_t>> arrays;
  std::vector<TopkInt8Message> messages(m);
  std::size_t entries = 0;
  std::size_t groups = 0;
  for (std::size_t i = 0; i < m; ++i) {
    const Array<std::uint8_t>& body = arrays.emplace_back(items[i], item_name("bodies", i));
    require_apart(body, out);
    messages[i].k = checked_count(py::cast<std::ptrdiff_t>(py::object(counts[i])), out.size);
    messages[i].block = checked_block(py::cast<std::ptrdiff_t>(py::object(blocks[i])));
    messages[i].weight = weight_of(py::object(weights[i]), item_name("weights", i));
    if (body.size < messages[i].k) return py::make_tuple(i, unsigned{kBadGapLength});
    entries += messages[i].k;
    groups += gap_groups(messages[i].k);
  }
  GapStart* starts = memory_of<GapStart>(groups);
  for (std::size_t i = 0; i < m; ++i) {
    if (const unsigned faults = check(arrays[i], out.size, messages[i], starts)) {
      return py::make_tuple(i, faults);
    }
    starts += gap_groups(messages[i].k);
  }
  const Shares shares(out.size, sparse_bytes(out.size, entries));
  TopkInt8Cursor* const cursors = memory_of<TopkInt8Cursor>(shares.threads() * m);
  {
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&, kernel = active<TopkInt8Kernels>().accumulate_f32](const Share& share) {
      kernel(messages.data(), m, share.first, share.first + share.count, cursors + share.worker * m,
             out.data);
    });
  }
  return py::make_tuple(m, 0u);
}

}  // namespace

void bind_topk_int8(Module& m) {
  m.def("topk_int8_bound", bound, py::arg("n"), py::arg("k"), py::arg("block"));
  m.def("topk_int8_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("k"), py::arg("block"),
        py::arg("body"));
  m.def("topk_int8_decode_f32", decode_f32, py::arg("body"), py::arg("k"), py::arg("block"), py::arg("out"));
  m.def("topk_int8_accumulate_f32", accumulate_f32, py::arg("bodies"), py::arg("counts"), py::arg("blocks"),
        py::arg("weights"), py::arg("out"));
}

}  // namespace pydec::bindings
