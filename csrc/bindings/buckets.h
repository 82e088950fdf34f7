// Calls that take many vectors of different lengths at once: a step's parameters in one call.
#pragma once

#include <algorithm>
#include <vector>

#include "bindings/arrays.h"

namespace pydec::bindings {

/// The items of a sequence that is itself an argument or an item of one, `expected` many.
inline py::tuple items_of(py::handle object, const Name& name, std::size_t expected, const char* why) {
  if (PySequence_Check(object.ptr()) == 0) {
    throw py::type_error(name + " must be a sequence of vectors, got " + Py_TYPE(object.ptr())->tp_name);
  }
  py::tuple items = items_of(py::reinterpret_borrow<py::sequence>(object));
  if (items.size() != expected) {
    throw py::value_error(name + " must have " + std::to_string(expected) + " vectors (" + why + "), got " +
                          std::to_string(items.size()));
  }
  return items;
}

/// All that a call writes, so that overlaps among thousands of vectors are found without comparing all pairs.
class Written {
 public:
  /// Raises ValueError if the array is read-only.
  template <class T>
  void add(const Array<T>& array) {
    array.output();
    if (array.size != 0) ranges_.push_back({array.begin(), array.end(), array.name});
  }

  /// To call after the last `add`. Raises ValueError if two of them share memory.
  void close() {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < ranges_.size(); ++i) {
      if (ranges_[i].begin < ranges_[i - 1].end) refuse(ranges_[i - 1].name, ranges_[i].name);
    }
  }

  /// Raises ValueError if an input shares memory with anything written; exactly `same` is accepted.
  template <class T>
  void require_apart_from(const Array<T>& input, const Array<T>* same = nullptr) const {
    if (input.size == 0) return;
    // Ranges are apart, so their ends ascend as their starts do: the first that ends behind the start
    // overlaps, or none does.
    const auto found =
        std::upper_bound(ranges_.begin(), ranges_.end(), input.begin(),
                         [](const char* begin, const Range& range) { return begin < range.end; });
    if (found == ranges_.end() || found->begin >= input.end()) return;
    if (same != nullptr && input.begin() == same->begin() && input.end() == same->end()) return;
    refuse(input.name, found->name);
  }

 private:
  struct Range {
    const char* begin;
    const char* end;
    Name name;
  };

  [[noreturn]] static void refuse(const Name& a, const Name& b) {
    throw py::value_error(a + " and " + b + " overlap in memory; pass separate arrays");
  }

  std::vector<Range> ranges_;
};

}  // namespace pydec::bindings
