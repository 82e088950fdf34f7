#include "pydec/block_topk.h"

#include <vector>

#include "bindings/arrays.h"
#include "bindings/parallel.h"

namespace pydec::bindings {
namespace {

/// Candidates of the calling thread, kept from call to call.
BlockTopkWorkspace workspace_of(std::size_t block) {
  thread_local Room<std::uint32_t> keys;
  thread_local Room<std::uint16_t> places;
  return {keys.of(block), places.of(block)};
}

/// Shares of whole blocks; `bytes` are touched for each element.
Shares shares_of(const BlockTopkShape& shape, std::size_t bytes) {
  return Shares(shape.n, bytes, block_unit(shape.block, shape.n));
}

BlockTopkShape shape_of(const BlockTopkShape& shape, const Share& share) {
  return {share.count, shape.block, shape.k};
}

/// Entries of the blocks before a share.
std::size_t entries_before(const BlockTopkShape& shape, const Share& share) {
  return share.first / shape.block * shape.k;
}

BlockTopkShape checked_shape(std::size_t n, std::ptrdiff_t block, std::ptrdiff_t k) {
  if (block < 1 || static_cast<std::size_t>(block) > kMaxTopkBlock) {
    throw py::value_error("block must be in 1..65536, got " + std::to_string(block));
  }
  if (k < 1 || k > block) {
    throw py::value_error("k must be in 1.." + std::to_string(block) + ", got " + std::to_string(k));
  }
  return {n, static_cast<std::size_t>(block), static_cast<std::size_t>(k)};
}

std::size_t entries_of(const BlockTopkShape& shape) {
  return shape.n / shape.block * shape.k + block_topk_count(shape.k, shape.block, shape.n % shape.block);
}

std::size_t select_f32(py::handle x_object, py::handle residual_object, std::ptrdiff_t block,
                       std::ptrdiff_t k, py::handle indices_object, py::handle values_object) {
  const Array<float> x(x_object, "x");
  const BlockTopkShape shape = checked_shape(x.size, block, k);
  const Array<std::uint16_t> indices(indices_object, "indices");
  const Array<float> values(values_object, "values");
  indices.output().sized(entries_of(shape), "k for each block");
  values.output().sized(entries_of(shape), "k for each block");
  require_all_apart(x, indices, values);
  F32* residual = residual_of(residual_object, x, indices, values);
  const Shares shares = shares_of(shape, residual != nullptr ? 12 : 4);
  const BlockTopkWorkspace all = workspace_of(shares.threads() * shape.block);
  py::gil_scoped_release nogil;  // touches no Python object
  return shares.count([&, kernel = active<BlockTopkKernels>().select_f32](const Share& share) {
    const std::size_t entries = entries_before(shape, share);
    const BlockTopkWorkspace workspace{all.keys + share.worker * shape.block,
                                       all.places + share.worker * shape.block};
    return kernel(x.data + share.first, shifted(residual, share), shape_of(shape, share),
                  indices.data + entries, values.data + entries, workspace);
  });
}

/// The first block whose indices are wrong, or the number of blocks. Without the GIL.
std::size_t first_invalid(const U16* indices, const BlockTopkShape& shape) {
  const Shares shares = shares_of(shape, 1);
  std::vector<std::size_t> found(shares.size());
  shares.run([&, kernel = active<BlockTopkKernels>().check](const Share& share) {
    found[share.index] = kernel(indices + entries_before(shape, share), shape_of(shape, share));
  });
  std::size_t valid = 0;
  shares.each([&](const Share& share) {
    valid += found[share.index];
    return found[share.index] == blocks_of(share.count, shape.block);
  });
  return valid;
}

std::size_t check(py::handle indices_object, std::ptrdiff_t n, std::ptrdiff_t block, std::ptrdiff_t k) {
  const Array<std::uint16_t> indices(indices_object, "indices");
  if (n < 0) throw py::value_error("n must not be negative, got " + std::to_string(n));
  const BlockTopkShape shape = checked_shape(static_cast<std::size_t>(n), block, k);
  indices.sized(entries_of(shape), "k for each block");
  py::gil_scoped_release nogil;  // touches no Python object
  return first_invalid(indices.data, shape);
}

/// Raises IndexError unless the indices increase in every block and stay inside.
void require_valid(const Array<std::uint16_t>& indices, const BlockTopkShape& shape) {
  const std::size_t blocks = blocks_of(shape.n, shape.block);
  std::size_t valid = 0;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    valid = first_invalid(indices.data, shape);
  }
  if (valid != blocks) {
    throw py::index_error(indices.name + " do not increase or leave the block in block " +
                          std::to_string(valid) + "; out is unchanged");
  }
}

void decode_f32(py::handle indices_object, py::handle values_object, std::ptrdiff_t block, std::ptrdiff_t k,
                py::handle out_object) {
  const Array<std::uint16_t> indices(indices_object, "indices");
  const Array<float> values(values_object, "values");
  const Array<float> out(out_object, "out");
  const BlockTopkShape shape = checked_shape(out.output().size, block, k);
  indices.sized(entries_of(shape), "k for each block");
  values.sized(entries_of(shape), "k for each block");
  require_apart(indices, out);
  require_apart(values, out);
  require_valid(indices, shape);
  const Shares shares = shares_of(shape, sizeof(float));
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<BlockTopkKernels>().decode_f32](const Share& share) {
    const std::size_t entries = entries_before(shape, share);
    kernel(indices.data + entries, values.data + entries, shape_of(shape, share), out.data + share.first);
  });
}

void accumulate_f32(const py::sequence& indices, const py::sequence& values, const py::sequence& weights,
                    std::ptrdiff_t block, std::ptrdiff_t k, py::handle out_object) {
  const std::size_t m = indices.size();
  if (values.size() != m || weights.size() != m) {
    throw py::value_error("indices, values and weights must be equally many, got " + std::to_string(m) +
                          ", " + std::to_string(values.size()) + " and " + std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  const BlockTopkShape shape = checked_shape(out.output().size, block, k);
  const py::tuple all_indices = items_of(indices);
  const py::tuple all_values = items_of(values);
  std::vector<BlockTopkMessage> messages(m);
  for (std::size_t message = 0; message < m; ++message) {
    const Array<std::uint16_t> index(all_indices[message], item_name("indices", message));
    const Array<float> value(all_values[message], item_name("values", message));
    index.sized(entries_of(shape), "k for each block");
    value.sized(entries_of(shape), "k for each block");
    require_apart(index, out);
    require_apart(value, out);
    const float weight = weight_of(py::object(weights[message]), item_name("weights", message));
    require_valid(index, shape);
    messages[message] = {index.data, value.data, weight};
  }
  const Shares shares = shares_of(shape, sizeof(float));
  Rows<BlockTopkMessage> rows(shares, m);
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<BlockTopkKernels>().accumulate_f32](const Share& share) {
    const std::size_t entries = entries_before(shape, share);
    BlockTopkMessage* row = rows[share.worker];
    for (std::size_t i = 0; i < m; ++i) {
      row[i] = {messages[i].indices + entries, messages[i].values + entries, messages[i].weight};
    }
    kernel(row, m, shape_of(shape, share), out.data + share.first);
  });
}

}  // namespace

void bind_block_topk(Module& m) {
  m.def("block_topk_select_f32", select_f32, py::arg("x"), py::arg("residual"), py::arg("block"),
        py::arg("k"), py::arg("indices"), py::arg("values"));
  m.def("block_topk_check", check, py::arg("indices"), py::arg("n"), py::arg("block"), py::arg("k"));
  m.def("block_topk_decode_f32", decode_f32, py::arg("indices"), py::arg("values"), py::arg("block"),
        py::arg("k"), py::arg("out"));
  m.def("block_topk_accumulate_f32", accumulate_f32, py::arg("indices"), py::arg("values"),
        py::arg("weights"), py::arg("block"), py::arg("k"), py::arg("out"));
}

}  // namespace pydec::bindings
