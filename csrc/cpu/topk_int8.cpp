#include "pydec/topk_int8.h"

#include "cpu/choose.h"
#include "cpu/sweep.h"
#include "pydec/element_quant.h"

namespace pydec {
namespace {

using Codes = CodecOf<Codec::int8>;

Int8Rule rule_of(const F32* values, std::size_t n) noexcept {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bits = magnitude_bits(values[i]);
    largest = bits > largest ? bits : largest;
  }
  return scale_rule(largest, Codes::kTop);
}

/// Codes of one block; returns whether it cannot be encoded.
bool encode_block(const F32* values, std::size_t n, std::uint8_t* codes, F32* scale) noexcept {
  const Int8Rule rule = rule_of(values, n);
  *scale = rule.scale;
  switch (rule.kind) {
    case Int8Kind::normal:
      PYDEC_INDEPENDENT
      for (std::size_t i = 0; i < n; ++i) {
        codes[i] = static_cast<std::uint8_t>(Codes::nearest(values[i] * rule.inverse).code & 0xffu);
      }
      return false;
    case Int8Kind::tiny:
      for (std::size_t i = 0; i < n; ++i) {
        const float units = tiny_units(values[i], rule.inverse, Codes::kTop);
        codes[i] = static_cast<std::uint8_t>(Codes::nearest(units).code & 0xffu);
      }
      return false;
    default:
      __builtin_memset(codes, 0, n);
      return rule.kind == Int8Kind::bad;
  }
}

TopkInt8Encoded finish_f32(const F32* x, F32* residual, std::size_t n, std::size_t k, std::size_t block,
                           TopkCandidates candidates, const TopkWorkspace& workspace, U32* indices,
                           F32* values, const TopkInt8Parts& out) noexcept {
  TopkInt8Encoded encoded{};
  encoded.nonfinite = choose(x, residual, n, k, indices, values, candidates, workspace).bad;
  if (encoded.nonfinite > 0) return encoded;
  for (std::size_t first = 0, index = 0; first < k; first += block, ++index) {
    const std::size_t length = k - first < block ? k - first : block;
    encoded.too_large += encode_block(values + first, length, out.codes + first, out.scales + index) ? 1 : 0;
  }
  if (encoded.too_large > 0) return encoded;
  for (std::size_t first = 0, index = 0; residual != nullptr && first < k; first += block, ++index) {
    const std::size_t end = k - first < block ? k : first + block;
    const float scale = out.scales[index];
    for (std::size_t j = first; j < end; ++j) {
      if (j + kEntriesAhead < k) __builtin_prefetch(residual + indices[j + kEntriesAhead], 1);
      const float sent = scale * Codes::level(out.codes[j]);
      residual[indices[j]] = values[j] - sent;
    }
  }
  encoded.bytes = table<GapKernels, Target::PYDEC_TARGET>().pack(indices, k, out.widths, out.packed);
  return encoded;
}

TopkInt8Encoded encode_f32(const F32* x, F32* residual, std::size_t n, std::size_t k, std::size_t block,
                           const TopkPlan& plan, const TopkWorkspace& workspace, U32* indices, F32* values,
                           const TopkInt8Parts& out) noexcept {
  const TopkCandidates candidates = collect_all(x, residual, n, plan, false, workspace);
  return finish_f32(x, residual, n, k, block, candidates, workspace, indices, values, out);
}

/// Whether the codes are what an encoder makes of some values with this scale.
bool is_valid(const std::uint8_t* codes, std::size_t n, float scale) noexcept {
  int largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const int code = static_cast<std::int8_t>(codes[i]);
    const int size = code < 0 ? -code : code;
    largest = size > largest ? size : largest;
  }
  if (scale == 0.0f) return largest == 0;
  // The scale is a 127th of the largest value, so that one has the code 127 or -127; but a tiny scale can
  // have been rounded by a third.
  return largest == 127 || (largest < 127 && scale < kTinyScale);
}

unsigned check(const F32* scales, const std::uint8_t* codes, std::size_t k, std::size_t block) noexcept {
  unsigned faults = 0;
  for (std::size_t first = 0, index = 0; first < k; first += block, ++index) {
    const std::size_t length = k - first < block ? k - first : block;
    const float scale = scales[index];
    const bool negative = (bits_of(scale) & ~kMagnitudeMask) != 0;
    if (negative || bits_of(scale * Codes::kTop) >= kInfinityBits) faults |= kBadTopkScale;
    if (!is_valid(codes + first, length, scale)) faults |= kBadTopkCode;
  }
  return faults;
}

/// Unpacks the next group of a message; false if there is none.
bool advance(const TopkInt8Message& message, TopkInt8Cursor& cursor) noexcept {
  const std::size_t first = cursor.group * kGapGroup;
  if (first >= message.k) return false;
  const GapStart start = message.starts[cursor.group];
  cursor.count = message.k - first < kGapGroup ? message.k - first : kGapGroup;
  cursor.at = 0;
  table<GapKernels, Target::PYDEC_TARGET>().unpack_group(message.parts.packed + start.offset,
                                                         message.parts.widths[cursor.group], cursor.count,
                                                         start.previous, cursor.indices);
  ++cursor.group;
  constexpr std::size_t kRun = 16;  // what blocks are multiples of
  for (std::size_t i = 0; i < cursor.count; i += kRun) {
    const float scale = message.parts.scales[(first + i) / message.block];
    const std::size_t length = cursor.count - i < kRun ? cursor.count - i : kRun;
    const std::uint8_t* codes = message.parts.codes + first + i;
    for (std::size_t j = 0; j < length; ++j) cursor.values[i + j] = scale * Codes::level(codes[j]);
  }
  return true;
}

/// The group that the first entry whose index is at least `bound` is in, or the one before.
std::size_t group_from(const TopkInt8Message& message, std::size_t bound) noexcept {
  std::size_t low = 0;  // groups that start below the bound
  for (std::size_t left = gap_groups(message.k); left > 0;) {
    const std::size_t half = left / 2;
    // The first group's previous index is -1.
    const bool below = low + half == 0 || message.starts[low + half].previous < bound;
    low += below ? half + 1 : 0;
    left = below ? left - half - 1 : half;
  }
  return low == 0 ? 0 : low - 1;
}

/// Puts the cursor at the first entry whose index is at least `bound`.
void seek(const TopkInt8Message& message, std::size_t bound, TopkInt8Cursor& cursor) noexcept {
  cursor.group = group_from(message, bound);
  cursor.at = 0;
  cursor.count = 0;
  if (!advance(message, cursor)) return;
  while (cursor.at < cursor.count && cursor.indices[cursor.at] < bound) ++cursor.at;
}

/// Calls visit(index, value) for the entries before `end`; the cursor moves on. Asks for the lines of `out`
/// that a new group goes to.
template <class Visit>
void for_entries(const TopkInt8Message& message, std::size_t end, TopkInt8Cursor& cursor, const F32* out,
                 const Visit& visit) noexcept {
  for (;;) {
    std::size_t at = cursor.at;
    for (; at < cursor.count && cursor.indices[at] < end; ++at) visit(cursor.indices[at], cursor.values[at]);
    cursor.at = at;
    if (at < cursor.count || !advance(message, cursor)) return;
    for (std::size_t j = 0; j < cursor.count; ++j) __builtin_prefetch(out + cursor.indices[j], 1);
  }
}

void decode_f32(const TopkInt8Message& message, std::size_t first, std::size_t last, TopkInt8Cursor& cursor,
                F32* out) noexcept {
  seek(message, first, cursor);
  for_ranges(first, last, kZeroed, [&](std::size_t start, std::size_t end) {
    __builtin_memset(out + start, 0, (end - start) * sizeof(float));
    for_entries(message, end, cursor, out, [&](std::size_t i, float value) { out[i] = value; });
  });
}

void accumulate_f32(const TopkInt8Message* messages, std::size_t m, std::size_t first, std::size_t last,
                    TopkInt8Cursor* cursors, F32* out) noexcept {
  std::size_t entries = 0;
  for (std::size_t i = 0; i < m; ++i) {
    seek(messages[i], first, cursors[i]);
    if (messages[i].k > 0) {
      entries += (group_from(messages[i], last) - group_from(messages[i], first) + 1) * kGapGroup;
    }
  }
  if (entries == 0) return;
  for_ranges(first, last, range_for(last - first, entries, m), [&](std::size_t, std::size_t end) {
    for (std::size_t i = 0; i < m; ++i) {
      const float weight = messages[i].weight;
      for_entries(messages[i], end, cursors[i], out,
                  [&](std::size_t at, float value) { add_entry(out, at, weight, value); });
    }
  });
}

}  // namespace

template <>
const TopkInt8Kernels& table<TopkInt8Kernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr TopkInt8Kernels kernels{.encode_f32 = encode_f32,
                                           .finish_f32 = finish_f32,
                                           .check = check,
                                           .decode_f32 = decode_f32,
                                           .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
