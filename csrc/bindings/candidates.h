// Candidates of a selection, collected by several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/parallel.h"
#include "pydec/topk.h"

namespace pydec::bindings {

/// Shares of a vector whose candidates end up behind one another, as one pass would leave them.
class SharedCandidates {
 public:
  /// `capacity` candidates at most; 0 for none at all. Memory belongs to the calling thread and is kept.
  SharedCandidates(std::size_t n, std::size_t capacity)
      : shares_(capacity != 0 ? n : 0, kShareBytes / kMostElements), capacity_(capacity) {
    if (!several()) return;
    segments_.resize(shares_.size());
    thread_local Room<std::uint32_t> indices;
    thread_local Room<float> values;
    const std::size_t scratch = shares_.threads() * kMostElements;
    scratch_ = {indices.of(scratch + capacity), values.of(scratch + capacity)};
    found_ = {scratch_.indices + scratch, scratch_.values + scratch};
  }

  /// Whether threads have anything to share.
  bool several() const { return shares_.threads() > 1; }

  /// As TopkKernels::collect_f32 over all elements, with room for the capacity at `to`. Without the GIL.
  TopkCandidates collect(const float* x, float* residual, Bracket bracket, const TopkWorkspace& to) {
    std::atomic<std::size_t> total{0};
    shares_.run([&, kernel = active<TopkKernels>().collect_f32](const Share& share) {
      std::uint32_t* indices = scratch_.indices + share.worker * kMostElements;
      float* values = scratch_.values + share.worker * kMostElements;
      const std::size_t count =
          kernel(x, residual, share.first, share.first + share.count, bracket, kMostElements, indices, values)
              .count;
      const std::size_t place = total.fetch_add(count, std::memory_order_relaxed);
      const bool fits = place + count <= capacity_;
      segments_[share.index] = {place, fits ? count : 0};
      if (fits) return copy({indices, values}, count, {found_.indices + place, found_.values + place});
      for (std::size_t j = 0; residual != nullptr && j < count; ++j) {  // what `collect` set to 0
        if (magnitude_bits(values[j]) >= bracket.high) residual[indices[j]] = values[j];
      }
    });
    std::size_t count = 0;
    for (const Segment& segment : segments_) {
      copy({found_.indices + segment.place, found_.values + segment.place}, segment.count,
           {to.indices + count, to.values + count});
      count += segment.count;
    }
    return {bracket, count, total.load(std::memory_order_relaxed) <= capacity_};
  }

 private:
  static constexpr std::size_t kMostElements = std::size_t{1} << 15;  // of a share: all may be candidates

  struct Segment {
    std::size_t place;
    std::size_t count;
  };

  static void copy(const TopkWorkspace& from, std::size_t count, const TopkWorkspace& to) {
    std::memcpy(to.indices, from.indices, count * sizeof(std::uint32_t));
    std::memcpy(to.values, from.values, count * sizeof(float));
  }

  Shares shares_;
  std::size_t capacity_;
  std::vector<Segment> segments_;  // one for each share
  TopkWorkspace scratch_{};        // of each thread, for one share
  TopkWorkspace found_{};          // of all, in the order in which they came
};

}  // namespace pydec::bindings
