#include "pydec/randk.h"

#include "cpu/loop.h"
#include "cpu/sweep.h"

namespace pydec {
namespace {

constexpr std::size_t kLanes = 128;  // enough to hide the latency of a multiplication on every target

/// One step of every lane's hash; a lane takes every 128th element.
void absorb(const F32* a, std::size_t n, std::uint32_t* lanes, std::uint32_t* bad) noexcept {
  for (std::size_t j = 0; j < n; ++j) {
    const std::uint32_t bits = bits_of(a[j]);
    const std::uint32_t h = (lanes[j] ^ bits) * 0x9e3779b1u;
    lanes[j] = h ^ (h >> 15);
    bad[j] += (bits & kMagnitudeMask) >= kInfinityBits ? 1u : 0u;
  }
}

std::uint64_t digest_f32(const F32* x, F32* residual, std::size_t n, std::uint64_t start,
                         std::size_t& bad) noexcept {
  std::uint32_t lanes[kLanes];
  std::uint32_t counts[kLanes] = {};
  for (std::size_t j = 0; j < kLanes; ++j) lanes[j] = static_cast<std::uint32_t>(j);
  for (std::size_t i = 0; i < n; i += kLanes) {
    const std::size_t length = n - i < kLanes ? n - i : kLanes;
    const F32* a = x + i;
    if (residual != nullptr) {
      F32* sum = residual + i;
      PYDEC_INDEPENDENT
      for (std::size_t j = 0; j < length; ++j) sum[j] = a[j] + sum[j];
      a = sum;
    }
    if (length == kLanes) {
      absorb(a, kLanes, lanes, counts);
    } else {
      absorb(a, length, lanes, counts);
    }
  }
  std::uint64_t digest = start;
  for (std::size_t j = 0; j < kLanes; ++j) digest = mixed_bits(digest + lanes[j]);
  for (std::size_t j = 0; j < kLanes; ++j) bad += counts[j];
  return digest;
}

void gather_f32(const F32* x, const RandkShape& shape, const RandkStrata& strata, bool scaled,
                F32* values) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  for (std::size_t j = strata.first; j < strata.first + strata.count; ++j) {
    std::size_t size = 0;
    const std::size_t first = randk_choice(chunks, shape.k, shape.key, j, size) * shape.chunk;
    const std::size_t length = shape.n - first < shape.chunk ? shape.n - first : shape.chunk;
    const float scale = scaled ? static_cast<float>(size) : 1.0f;
    for (std::size_t i = 0; i < length; ++i) values[i] = x[first + i] * scale;
    values += length;
  }
}

void scatter_f32(const F32* values, const RandkShape& shape, const RandkStrata& strata, float weight,
                 F32* out) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  for (std::size_t j = strata.first; j < strata.first + strata.count; ++j) {
    std::size_t size = 0;
    const std::size_t first = randk_choice(chunks, shape.k, shape.key, j, size) * shape.chunk;
    const std::size_t length = shape.n - first < shape.chunk ? shape.n - first : shape.chunk;
    F32* target = out + first;
    PYDEC_INDEPENDENT
    for (std::size_t i = 0; i < length; ++i) {
      const float term = weight * values[i];
      target[i] = target[i] + term;
    }
    values += length;
  }
}

/// Puts the cursor at the stratum that element `first` is in.
void seek(const RandkShape& shape, std::size_t first, RandkCursor& cursor) noexcept {
  cursor.at = cursor.count = cursor.done = cursor.stratum = 0;
  if (shape.k == 0) return;
  const std::size_t chunks = randk_chunks(shape);
  const std::size_t least = chunks / shape.k;
  const std::size_t longer = chunks % shape.k * (least + 1);  // chunks in the longer strata
  const std::size_t chunk = first / shape.chunk;
  cursor.stratum = chunk < longer ? chunk / (least + 1) : chunks % shape.k + (chunk - longer) / least;
}

/// Draws the next chunks of a message and asks for the lines that they start in; false if there are none.
bool advance(const RandkShape& shape, RandkCursor& cursor, const F32* out) noexcept {
  const std::size_t chunks = randk_chunks(shape);
  const std::size_t left = shape.k - cursor.stratum;
  cursor.at = 0;
  cursor.count = left < RandkCursor::kStrata ? left : RandkCursor::kStrata;
  for (std::size_t j = 0; j < cursor.count; ++j) {
    std::size_t size = 0;
    const std::size_t choice = randk_choice(chunks, shape.k, shape.key, cursor.stratum + j, size);
    cursor.starts[j] = choice * shape.chunk;
    __builtin_prefetch(out + cursor.starts[j], 1);
  }
  cursor.stratum += cursor.count;
  return cursor.count > 0;
}

/// Adds what a message has in start..end; what is before start is passed over.
void add_range(const RandkMessage& message, std::size_t start, std::size_t end, RandkCursor& cursor,
               F32* out) noexcept {
  const RandkShape& shape = message.shape;
  for (;;) {
    for (; cursor.at < cursor.count; ++cursor.at, cursor.done = 0) {
      const std::size_t place = cursor.starts[cursor.at];
      const std::size_t length = shape.n - place < shape.chunk ? shape.n - place : shape.chunk;
      const std::size_t stop = end <= place ? 0 : (end - place < length ? end - place : length);
      std::size_t i = start <= place ? 0 : (start - place < length ? start - place : length);
      i = i < cursor.done ? cursor.done : i;
      // All chunks before this one are whole.
      const F32* values = message.values + (cursor.stratum - cursor.count + cursor.at) * shape.chunk;
      for (; i < stop; ++i) add_entry(out, place + i, message.weight, values[i]);
      cursor.done = i;
      if (i < length) return;
    }
    if (!advance(shape, cursor, out)) return;
  }
}

void accumulate_f32(const RandkMessage* messages, std::size_t m, std::size_t first, std::size_t last,
                    RandkCursor* cursors, F32* out) noexcept {
  std::size_t entries = 0;
  for (std::size_t i = 0; i < m; ++i) {
    seek(messages[i].shape, first, cursors[i]);
    const RandkShape& shape = messages[i].shape;
    if (shape.k > 0) entries += 1 + (last - first) / (shape.n / shape.k) * shape.chunk;
  }
  if (entries == 0) return;
  for_ranges(first, last, range_for(last - first, entries, m), [&](std::size_t start, std::size_t end) {
    for (std::size_t i = 0; i < m; ++i) add_range(messages[i], start, end, cursors[i], out);
  });
}

}  // namespace

template <>
const RandkKernels& table<RandkKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr RandkKernels kernels{.digest_f32 = digest_f32,
                                        .gather_f32 = gather_f32,
                                        .scatter_f32 = scatter_f32,
                                        .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
