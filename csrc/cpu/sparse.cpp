#include "pydec/sparse.h"

#include "cpu/sweep.h"

namespace pydec {
namespace {

SparseCheck check(const U32* indices, const F32* values, std::size_t k) noexcept {
  std::uint32_t disorder = 0;
  for (std::size_t j = 1; j < k; ++j) disorder |= indices[j] <= indices[j - 1] ? 1u : 0u;
  std::size_t nonfinite = 0;
  for (std::size_t j = 0; j < k; ++j) nonfinite += magnitude_bits(values[j]) >= kInfinityBits ? 1 : 0;
  return {disorder == 0, nonfinite};
}

/// The first of the entries whose index is at least `bound`.
std::size_t first_from(const U32* indices, std::size_t k, std::size_t bound) noexcept {
  std::size_t low = 0;
  while (k > 0) {
    const std::size_t half = k / 2;
    const bool below = indices[low + half] < bound;
    low += below ? half + 1 : 0;
    k = below ? k - half - 1 : half;
  }
  return low;
}

void decode_f32(const U32* indices, const F32* values, std::size_t k, std::size_t first, std::size_t last,
                F32* out) noexcept {
  std::size_t j = first_from(indices, k, first);
  for_ranges(first, last, kZeroed, [&](std::size_t start, std::size_t end) {
    __builtin_memset(out + start, 0, (end - start) * sizeof(float));
    for (; j < k && indices[j] < end; ++j) out[indices[j]] = values[j];
  });
}

void accumulate_f32(const SparseMessage* messages, std::size_t m, std::size_t first, std::size_t last,
                    std::size_t* places, F32* out) noexcept {
  std::size_t entries = 0;
  for (std::size_t i = 0; i < m; ++i) {
    places[i] = first_from(messages[i].indices, messages[i].k, first);
    entries += first_from(messages[i].indices, messages[i].k, last) - places[i];
  }
  if (entries == 0) return;
  for_ranges(first, last, range_for(last - first, entries, m), [&](std::size_t, std::size_t end) {
    for (std::size_t i = 0; i < m; ++i) {
      const SparseMessage message = messages[i];
      std::size_t j = places[i];
      prefetch_turn(message.indices + j);
      prefetch_turn(message.values + j);
      for (; j < message.k && message.indices[j] < end; ++j) {
        add_entry(out, message.indices[j], message.weight, message.values[j]);
        if (j + kEntriesAhead < message.k) __builtin_prefetch(out + message.indices[j + kEntriesAhead], 1);
      }
      places[i] = j;
    }
  });
}

}  // namespace

template <>
const SparseKernels& table<SparseKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr SparseKernels kernels{
      .check = check, .decode_f32 = decode_f32, .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
