#include "pydec/block_topk.h"

#include "cpu/largest.h"

namespace pydec {
namespace {

// In units of the last place: the first guess for a block is a sixteenth of an octave below the previous
// block's cut, and each further guess goes down twice as far as the one before.
constexpr std::uint32_t kMargin = 1u << 19;

/// What the next block is searched with. A poor guess costs time and changes no result.
struct Guess {
  std::uint32_t threshold = 0;
};

/// Selects from a = x or a = x + residual, which the residual becomes.
std::size_t select_block(const F32* x, F32* residual, std::size_t n, std::size_t k, U16* indices, F32* values,
                         const BlockTopkWorkspace& workspace, Guess& guess) noexcept {
  const F32* a = residual != nullptr ? residual : x;
  std::uint32_t threshold = guess.threshold;
  std::size_t found = candidates(x, residual, n, threshold, workspace.keys, workspace.places);
  for (std::uint32_t step = kMargin; found < k; step = step * 2) {
    threshold = threshold > step && step < (1u << 26) ? threshold - step : 0;
    found = candidates(a, nullptr, n, threshold, workspace.keys, workspace.places);
  }
  Largest cut = find_largest(workspace.keys, found, k, threshold, threshold + 2 * kMargin);
  // NaN and infinity are always candidates, because only candidates are counted.
  const std::uint32_t next = cut.key > kMargin ? cut.key - kMargin : 0;
  guess.threshold = next < kInfinityBits ? next : kInfinityBits;
  for (std::size_t j = 0, to = 0; to < k; ++j) {
    const std::uint32_t key = workspace.keys[j];
    const bool tie = key == cut.key && cut.ties > 0;
    indices[to] = workspace.places[j];
    values[to] = a[workspace.places[j]];
    to += key > cut.key || tie ? 1 : 0;
    cut.ties -= tie ? 1 : 0;
  }
  return count_from(workspace.keys, found, kInfinityBits);
}

std::size_t select_f32(const F32* x, F32* residual, const BlockTopkShape& shape, U16* indices, F32* values,
                       const BlockTopkWorkspace& workspace) noexcept {
  std::size_t bad = 0;
  Guess guess;
  for (std::size_t first = 0; first < shape.n; first += shape.block) {
    const std::size_t length = shape.n - first < shape.block ? shape.n - first : shape.block;
    const std::size_t k = block_topk_count(shape.k, shape.block, length);
    F32* rest = residual != nullptr ? residual + first : nullptr;
    bad += select_block(x + first, rest, length, k, indices, values, workspace, guess);
    if (rest != nullptr) {
      for (std::size_t j = 0; j < k; ++j) rest[indices[j]] = 0.0f;
    }
    indices += k;
    values += k;
  }
  return bad;
}

std::size_t check(const U16* indices, const BlockTopkShape& shape) noexcept {
  std::size_t index = 0;
  for (std::size_t first = 0; first < shape.n; ++index, first += shape.block) {
    const std::size_t length = shape.n - first < shape.block ? shape.n - first : shape.block;
    const std::size_t k = block_topk_count(shape.k, shape.block, length);
    std::uint32_t wrong = indices[k - 1] >= length ? 1u : 0u;
    for (std::size_t j = 1; j < k; ++j) wrong |= indices[j] <= indices[j - 1] ? 1u : 0u;
    if (wrong != 0) return index;
    indices += k;
  }
  return index;
}

void decode_f32(const U16* indices, const F32* values, const BlockTopkShape& shape, F32* out) noexcept {
  for (std::size_t first = 0; first < shape.n; first += shape.block) {
    const std::size_t length = shape.n - first < shape.block ? shape.n - first : shape.block;
    const std::size_t k = block_topk_count(shape.k, shape.block, length);
    __builtin_memset(out + first, 0, length * sizeof(float));
    for (std::size_t j = 0; j < k; ++j) out[first + indices[j]] = values[j];
    indices += k;
    values += k;
  }
}

void accumulate_f32(const BlockTopkMessage* messages, std::size_t m, const BlockTopkShape& shape,
                    F32* out) noexcept {
  for (std::size_t first = 0, at = 0; first < shape.n; first += shape.block) {
    const std::size_t length = shape.n - first < shape.block ? shape.n - first : shape.block;
    const std::size_t k = block_topk_count(shape.k, shape.block, length);
    F32* target = out + first;
    for (std::size_t message = 0; message < m; ++message) {
      const U16* indices = messages[message].indices + at;
      const F32* values = messages[message].values + at;
      const float weight = messages[message].weight;
      for (std::size_t j = 0; j < k; ++j) {
        const float term = weight * values[j];
        target[indices[j]] = target[indices[j]] + term;
      }
    }
    at += k;
  }
}

}  // namespace

template <>
const BlockTopkKernels& table<BlockTopkKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr BlockTopkKernels kernels{
      .select_f32 = select_f32, .check = check, .decode_f32 = decode_f32, .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
