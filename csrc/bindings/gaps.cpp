#include "pydec/gaps.h"

#include "bindings/arrays.h"

namespace pydec::bindings {
namespace {

std::size_t bound(std::size_t n, std::size_t k) {
  if (k > n) throw py::value_error("k must be in 0.." + std::to_string(n) + ", got " + std::to_string(k));
  return gap_groups(k) + gap_bound(n, k);
}

std::size_t pack(py::handle indices_object, py::handle out_object) {
  const Array<std::uint32_t> indices(indices_object, "indices");
  const Array<std::uint8_t> out(out_object, "out");
  require_apart(indices, out.output());
  const std::size_t k = indices.size;
  const std::size_t groups = gap_groups(k);
  bool increasing = false;
  {
    py::gil_scoped_release nogil;  // touches no Python object
    increasing = active<GapKernels>().increasing(indices.data, k);
  }
  if (!increasing) throw py::value_error("indices must increase");
  const std::size_t needed = k == 0 ? 0 : bound(std::size_t{indices.at(k - 1)} + 1, k);
  if (out.size < needed) {
    throw py::value_error("out has " + std::to_string(out.size) + " bytes, these indices may need " +
                          std::to_string(needed) + "; see gaps_bound");
  }
  py::gil_scoped_release nogil;  // touches no Python object
  return groups + active<GapKernels>().pack(indices.data, k, out.data, out.data + groups);
}

unsigned unpack(py::handle data_object, std::size_t n, py::handle indices_object) {
  const Array<std::uint8_t> data(data_object, "data");
  const Array<std::uint32_t> indices(indices_object, "indices");
  require_apart(data, indices.output());
  const std::size_t k = indices.size;
  const std::size_t groups = gap_groups(k);
  if (data.size < groups) return kBadGapLength;
  const std::uint8_t* packed = data.data + groups;
  py::gil_scoped_release nogil;  // touches no Python object
  const auto& kernels = active<GapKernels>();
  if (const unsigned faults = kernels.check(data.data, packed, data.size - groups, k, n, nullptr)) {
    return faults;
  }
  std::uint32_t previous = ~std::uint32_t{0};
  std::uint32_t group[kGapGroup];
  for (std::size_t first = 0; first < k; first += kGapGroup) {
    const std::size_t count = k - first < kGapGroup ? k - first : kGapGroup;
    const unsigned width = data.data[first / kGapGroup];
    U32* to = count == kGapGroup ? indices.data + first : group;
    kernels.unpack_group(packed, width, count, previous, to);
    if (count < kGapGroup) __builtin_memcpy(indices.data + first, group, count * sizeof(std::uint32_t));
    previous = to[count - 1];
    packed += gap_bytes(count, width);
  }
  return 0;
}

}  // namespace

void bind_gaps(Module& m) {
  m.def("gaps_bound", bound, py::arg("n"), py::arg("k"));
  m.def("gaps_pack", pack, py::arg("indices"), py::arg("out"));
  m.def("gaps_unpack", unpack, py::arg("data"), py::arg("n"), py::arg("indices"));
}

}  // namespace pydec::bindings
