// Lists of equally long vectors of one type, and their weights, as kernels take them.
#pragma once

#include <string>
#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {

/// The pointers of a sequence of arrays as long as `n` and of the type of `first`, which this object keeps
/// alive.
template <class T>
struct Vectors {
  /// Raises TypeError or ValueError that names the item.
  Vectors(const Array<T>& first, const py::sequence& sequence, const char* name, std::size_t n,
          const char* why)
      : objects(items_of(sequence)) {
    items.reserve(objects.size());
    pointers.reserve(objects.size());
    for (std::size_t k = 0; k < objects.size(); ++k) {
      items.push_back(beside(first, objects[k], item_name(name, k)));
      pointers.push_back(items.back().sized(n, why).data);
    }
  }

  /// Raises ValueError if one shares memory with `other`; exactly the same memory is accepted if allowed.
  template <class Other>
  const Vectors& apart(const Array<Other>& other, bool same_allowed = false) const {
    for (const Array<T>& item : items) require_apart(item, other, same_allowed);
    return *this;
  }

  std::size_t size() const { return items.size(); }

  py::tuple objects;
  std::vector<Array<T>> items;
  std::vector<T*> pointers;
};

/// One finite weight for each of m vectors.
template <class Real = float>
std::vector<Real> weights_of(const py::sequence& sequence, std::size_t m) {
  const py::tuple weights = items_of(sequence);
  if (weights.size() != m) {
    throw py::value_error("weights must be one for each vector, got " + std::to_string(weights.size()) +
                          " weights for " + std::to_string(m) + " vectors");
  }
  std::vector<Real> values(m);
  for (std::size_t k = 0; k < m; ++k) values[k] = weight_of<Real>(weights[k], item_name("weights", k));
  return values;
}

}  // namespace pydec::bindings
