// One launch for a list of vectors: a table of them among the kernel's parameters.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "cuda/simt.h"

namespace pydec::cuda {

constexpr std::size_t kParameterBytes =
    3584;  // of the 4 KiB that every GPU takes; the rest is for other arguments

/// Items, and the units of work up to and with each. Units are numbered through all items.
template <class Item>
struct Table {
  static constexpr unsigned kMost = kParameterBytes / (sizeof(Item) + sizeof(std::size_t));
  Item at[kMost];
  std::size_t end[kMost];
  unsigned count;

  std::size_t units() const { return count == 0 ? 0 : end[count - 1]; }
};

namespace {

/// Walks through a table in increasing order of units.
struct Cursor {
  unsigned item = 0;
  std::size_t begin = 0;  // units before the item

  /// Moves to the item that has this unit, and returns the unit's number within it.
  template <class T>
  __device__ std::size_t move(const T& table, std::size_t unit) {
    while (unit >= table.end[item]) begin = table.end[item++];
    return unit - begin;
  }
};

}  // namespace

/// Calls launch(table) for as few tables as hold all spans: item_of(span) is a span's item, units_of(span)
/// its work; spans without work are left out.
template <class Item, class Span, class ItemOf, class UnitsOf, class Launch>
cudaError_t for_tables(const Span* spans, std::size_t count, const ItemOf& item_of, const UnitsOf& units_of,
                       const Launch& launch) {
  Table<Item> table = {};
  for (std::size_t k = 0; k < count; ++k) {
    const std::size_t units = units_of(spans[k]);
    if (units > 0) {
      table.at[table.count] = item_of(spans[k]);
      table.end[table.count] = table.units() + units;
      ++table.count;
    }
    if (table.count == Table<Item>::kMost || (k + 1 == count && table.count > 0)) {
      launch(static_cast<const Table<Item>&>(table));
      const cudaError_t error = cudaGetLastError();
      if (error != cudaSuccess) return error;
      table.count = 0;
    }
  }
  return cudaSuccess;
}

constexpr std::size_t kTile = 1024;  // elements that a block of threads takes at a time, four each

inline std::size_t tiles_of(std::size_t n) {
  return n / kTile + (n % kTile != 0 ? 1 : 0);
}

}  // namespace pydec::cuda
