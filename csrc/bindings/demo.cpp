#include "pydec/demo.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/demo_shape.h"
#include "bindings/parallel.h"

namespace pydec::bindings {
namespace {

// Time for an element, as bytes at the memory's speed: threads pay for smaller vectors than where memory is
// the limit.
constexpr std::size_t kWork = 32;

/// Tiles of the calling thread and of its helpers, kept from call to call.
DemoWorkspace* workspaces(std::size_t threads) {
  thread_local Room<DemoWorkspace> memory;
  return memory.of(threads);
}

/// Elements of a tile, and where shares of them may be cut.
std::size_t elements_of(const DemoShape& shape) {
  return std::size_t{1} << (2 * shape.log_side);
}

Shares shares_of(const DemoShape& shape, std::size_t bytes) {
  return {shape.n, bytes, block_unit(elements_of(shape), std::max(shape.n, std::size_t{1}))};
}

/// The records of a share's tiles, and its shape.
template <class T>
T* records_of(T* records, const DemoShape& shape, const Share& share) {
  return records + share.first / elements_of(shape) * demo_record(shape.k, shape.log_side, shape.values);
}

DemoShape shape_of(const DemoShape& shape, const Share& share) {
  return {share.count, shape.log_side, shape.k, shape.values};
}

py::tuple encode_f32(py::handle x_object, py::handle residual_object, py::handle records_object,
                     std::ptrdiff_t side, std::ptrdiff_t k, const std::string& values, double beta_value) {
  const Array<float> x(x_object, "x");
  const Array<std::uint8_t> records(records_object, "records");
  const DemoShape shape = checked_shape(x.size, side, k, values);
  records.output().sized(bytes_of(shape), "one record for each tile");
  require_apart(x, records);
  F32* residual = residual_of(residual_object, x, records);
  const float beta = finite_weight(beta_value, "beta");
  const Shares shares = shares_of(shape, kWork);
  DemoWorkspace* work = workspaces(shares.threads());
  std::atomic<std::size_t> nonfinite{0};
  std::atomic<std::size_t> large{0};
  {
    py::gil_scoped_release nogil;  // touches no Python object
    shares.run([&, kernel = active<DemoKernels>().encode_f32](const Share& share) {
      const DemoBad bad = kernel(x.data + share.first, shifted(residual, share), beta, shape_of(shape, share),
                                 records_of(records.data, shape, share), work[share.worker]);
      nonfinite.fetch_add(bad.nonfinite, std::memory_order_relaxed);
      large.fetch_add(bad.large, std::memory_order_relaxed);
    });
  }
  return py::make_tuple(nonfinite.load(), large.load());
}

std::size_t check(py::handle records_object, std::ptrdiff_t n, std::ptrdiff_t side, std::ptrdiff_t k,
                  const std::string& values) {
  const Array<std::uint8_t> records(records_object, "records");
  if (n < 0) throw py::value_error("n must not be negative, got " + std::to_string(n));
  const DemoShape shape = checked_shape(static_cast<std::size_t>(n), side, k, values);
  records.sized(bytes_of(shape), "one record for each tile");
  DemoWorkspace* work = workspaces(1);
  py::gil_scoped_release nogil;  // touches no Python object
  return active<DemoKernels>().check(records.data, shape, *work);
}

std::size_t bytes(std::ptrdiff_t n, std::ptrdiff_t side, std::ptrdiff_t k, const std::string& values) {
  if (n < 0) throw py::value_error("n must not be negative, got " + std::to_string(n));
  return bytes_of(checked_shape(static_cast<std::size_t>(n), side, k, values));
}

void decode_f32(py::handle records_object, py::handle out_object, std::ptrdiff_t side, std::ptrdiff_t k,
                const std::string& values) {
  const Array<std::uint8_t> records(records_object, "records");
  const Array<float> out(out_object, "out");
  const DemoShape shape = checked_shape(out.output().size, side, k, values);
  records.sized(bytes_of(shape), "one record for each tile");
  require_apart(records, out);
  const Shares shares = shares_of(shape, kWork);
  DemoWorkspace* work = workspaces(shares.threads());
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<DemoKernels>().decode_f32](const Share& share) {
    kernel(records_of(records.data, shape, share), shape_of(shape, share), out.data + share.first,
           work[share.worker]);
  });
}

void accumulate_f32(const py::sequence& records, const py::sequence& weights, py::handle out_object,
                    std::ptrdiff_t side, std::ptrdiff_t k, const std::string& values) {
  const std::size_t m = records.size();
  if (weights.size() != m) {
    throw py::value_error("records and weights must be equally many, got " + std::to_string(m) + " and " +
                          std::to_string(weights.size()));
  }
  const Array<float> out(out_object, "out");
  const DemoShape shape = checked_shape(out.output().size, side, k, values);
  const py::tuple all_records = items_of(records);
  std::vector<DemoMessage> messages(m);
  for (std::size_t j = 0; j < m; ++j) {
    const Array<std::uint8_t> record(all_records[j], item_name("records", j));
    record.sized(bytes_of(shape), "one record for each tile");
    require_apart(record, out);
    messages[j] = {record.data, weight_of(py::object(weights[j]), item_name("weights", j))};
  }
  const Shares shares = shares_of(shape, m * kWork);
  Rows<DemoMessage> rows(shares, m);
  DemoWorkspace* work = workspaces(shares.threads());
  py::gil_scoped_release nogil;  // touches no Python object
  shares.run([&, kernel = active<DemoKernels>().accumulate_f32](const Share& share) {
    DemoMessage* row = rows[share.worker];
    for (std::size_t j = 0; j < m; ++j) {
      row[j] = {records_of(messages[j].records, shape, share), messages[j].weight};
    }
    kernel(row, m, shape_of(shape, share), out.data + share.first, work[share.worker]);
  });
}

}  // namespace

void bind_demo(Module& m) {
  m.def("demo_bytes", bytes, py::arg("n"), py::arg("side"), py::arg("k"), py::arg("values"));
  m.def("demo_encode_f32", encode_f32, py::arg("x"), py::arg("residual"), py::arg("records"), py::arg("side"),
        py::arg("k"), py::arg("values"), py::arg("beta"));
  m.def("demo_check", check, py::arg("records"), py::arg("n"), py::arg("side"), py::arg("k"),
        py::arg("values"));
  m.def("demo_decode_f32", decode_f32, py::arg("records"), py::arg("out"), py::arg("side"), py::arg("k"),
        py::arg("values"));
  m.def("demo_accumulate_f32", accumulate_f32, py::arg("records"), py::arg("weights"), py::arg("out"),
        py::arg("side"), py::arg("k"), py::arg("values"));
}

}  // namespace pydec::bindings
