// Lists of equally long float32 vectors, and their weights, as kernels take them.
#pragma once

#include <string>
#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {

/// The pointers of a sequence of float32 arrays of `n` elements; the arrays stay alive as the sequence does.
struct Vectors {
  /// Raises TypeError or ValueError that names the item.
  Vectors(const py::sequence& sequence, const char* name, std::size_t n, const char* why) {
    items.reserve(sequence.size());
    pointers.reserve(sequence.size());
    for (std::size_t k = 0; k < sequence.size(); ++k) {
      const py::object item = sequence[k];
      items.emplace_back(item, item_name(name, k)).sized(n, why);
      pointers.push_back(items.back().data);
    }
  }

  /// Raises ValueError if one shares memory with `other`; exactly the same memory is accepted if allowed.
  template <class T>
  const Vectors& apart(const Array<T>& other, bool same_allowed = false) const {
    for (const Array<float>& item : items) require_apart(item, other, same_allowed);
    return *this;
  }

  std::size_t size() const { return items.size(); }
  const float* const* data() const { return pointers.data(); }

  std::vector<Array<float>> items;
  std::vector<const float*> pointers;
};

/// One finite float32 weight for each of m vectors.
inline std::vector<float> weights_of(const py::sequence& weights, std::size_t m) {
  if (weights.size() != m) {
    throw py::value_error("weights must be one for each vector, got " + std::to_string(weights.size()) +
                          " weights for " + std::to_string(m) + " vectors");
  }
  std::vector<float> values(m);
  for (std::size_t k = 0; k < m; ++k) {
    values[k] = finite_weight(py::cast<double>(py::object(weights[k])), item_name("weights", k));
  }
  return values;
}

}  // namespace pydec::bindings
