// Sums of chunks, which threads fill in any order and one adds in the stated order.
#pragma once

#include <vector>

#include "bindings/arrays.h"
#include "pydec/reduce.h"

namespace pydec::bindings {

/// The sums of the chunks of n elements.
class ChunkSums {
 public:
  explicit ChunkSums(std::size_t n) : sums_(n / kSumChunk + (n % kSumChunk != 0 ? 1 : 0)) {}

  /// Those of the chunks from element `first` on, which starts one.
  double* of(std::size_t first) { return sums_.data() + first / kSumChunk; }

  double total() const {
    double total = 0.0;
    for (const double sum : sums_) total += sum;
    return total;
  }

 private:
  std::vector<double> sums_;
};

}  // namespace pydec::bindings
