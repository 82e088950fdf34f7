// Lists of equally long float32 vectors, and their weights, as kernels take them.
#pragma once

#include <string>
#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {

/// The pointers of a sequence of float32 arrays of `n` elements, which this object keeps alive.
struct Vectors {
  /// Raises TypeError or ValueError that names the item.
  Vectors(const py::sequence& sequence, const char* name, std::size_t n, const char* why)
      : objects(items_of(sequence)) {
    items.reserve(objects.size());
    pointers.reserve(objects.size());
    for (std::size_t k = 0; k < objects.size(); ++k) {
      items.emplace_back(objects[k], item_name(name, k)).sized(n, why);
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

  py::tuple objects;
  std::vector<Array<float>> items;
  std::vector<const float*> pointers;
};

/// One finite float32 weight for each of m vectors.
inline std::vector<float> weights_of(const py::sequence& sequence, std::size_t m) {
  const py::tuple weights = items_of(sequence);
  if (weights.size() != m) {
    throw py::value_error("weights must be one for each vector, got " + std::to_string(weights.size()) +
                          " weights for " + std::to_string(m) + " vectors");
  }
  std::vector<float> values(m);
  for (std::size_t k = 0; k < m; ++k) values[k] = weight_of(weights[k], item_name("weights", k));
  return values;
}

}  // namespace pydec::bindings
