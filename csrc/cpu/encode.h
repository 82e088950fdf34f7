// Encodes blocks of what a source gives: a vector, a sum, a difference, a step of CHOCO.
//
// A source is swept twice while its block is in the first-level cache, a register at a time:
//   first(i)             elements i, i + 1, ... of what is encoded; may write them to memory
//   again(i)             the same elements once more
//   settle(i, a, value)  takes note of what is sent of them: `value` of `a`
//   ahead(i)             may ask for what first(i) will read later
//   from(n)              the same source without its first n elements
//   staged(from, rest)   a source of the `rest` elements from `from` on, in `room`, followed by zeros
//   unstage(from, rest)  copies what it wrote back
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/line.h"
#include "cpu/loop.h"
#include "cpu/stream.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

/// Elements that are coded in one go: a multiple of every group.
constexpr std::size_t kPiece = 1024;
/// The largest group.
constexpr std::size_t kTail = 128;
constexpr std::size_t kSourceArrays = 4;  // at most
using TailRoom = float[kSourceArrays][kTail];
using CodeSink = Sink<kPiece>;

/// Copies `rest` elements to the row `number` of the room, followed by zeros.
inline float* stage(const F32* from, std::size_t rest, TailRoom& room, std::size_t number) noexcept {
  for (std::size_t j = 0; j < kTail; ++j) room[number][j] = 0.0f;
  __builtin_memcpy(room[number], from, rest * sizeof(float));
  return room[number];
}

/// What a block's scale is made of: the largest magnitude, or for `sign` the sum of magnitudes, element i in
/// lane i mod 16.
template <Codec codec>
struct Measure {
  Words largest[4] = {};

  /// n is a multiple of 16.
  template <class Source>
  void add(const Source& source, std::size_t n) noexcept {
    std::size_t i = 0;
    for (; i + 4 * kLine <= n; i += 4 * kLine) {
      source.ahead(i);
      for (std::size_t r = 0; r < 4 * kSteps; ++r) note(r % 4, source.first(i + r * kStep));
    }
    for (; i < n; i += kStep) note(0, source.first(i));
  }

  Int8Rule rule(std::size_t) const noexcept {
    const Words all =
        higher_words(higher_words(largest[0], largest[1]), higher_words(largest[2], largest[3]));
    return scale_rule(largest_of(all), CodecOf<codec>::kTop);
  }

 private:
  void note(std::size_t k, Register a) noexcept {
    largest[k] = higher_words(largest[k], words_of(a) & kMagnitudeMask);
  }
};

template <>
struct Measure<Codec::sign> {
  Register sum[kSteps] = {};

  template <class Source>
  void add(const Source& source, std::size_t n) noexcept {
    std::size_t i = 0;
    for (; i + 4 * kLine <= n; i += 4 * kLine) {
      source.ahead(i);
      for (std::size_t j = 0; j < 4 * kLine; j += kLine) line(source, i + j);
    }
    for (; i < n; i += kLine) line(source, i);
  }

  Int8Rule rule(std::size_t n) const noexcept {
    const float total = sum_of_line(sum);
    if (bits_of(total) >= kInfinityBits) return {Int8Kind::bad, float_of(kNaNBits), 0.0f};
    return {Int8Kind::normal, total / static_cast<float>(n), 1.0f};
  }

 private:
  template <class Source>
  void line(const Source& source, std::size_t i) noexcept {
    for (std::size_t r = 0; r < kSteps; ++r) {
      sum[r] += bits_as<Register>(words_of(source.first(i + r * kStep)) & kMagnitudeMask);
    }
  }
};

/// Random bits of `pairs` pairs of elements from pair `start` of the seed's on.
inline void draw_pairs(std::uint64_t seed, std::uint64_t start, std::size_t pairs,
                       std::uint32_t* out) noexcept {
  while (pairs > 0) {
    const std::uint64_t state = draw_state(seed, start / kDrawGroup);
    const auto low = static_cast<std::uint32_t>(state);
    const auto high = static_cast<std::uint32_t>(state >> 32);
    const auto j = static_cast<std::uint32_t>(start % kDrawGroup);
    const std::size_t left = kDrawGroup - j;
    const auto count = static_cast<std::uint32_t>(pairs < left ? pairs : left);
    for (std::uint32_t p = 0; p < count; ++p) out[p] = draw_pair(low, high, j + p);
    pairs -= count;
    start += count;
    out += count;
  }
}

/// Codes elements of a block, a register at a time.
template <Codec codec, class Source, bool tiny, bool stochastic>
struct Coder {
  using C = CodecOf<codec>;
  static constexpr std::size_t kGroup = group_of(codec);
  static constexpr std::size_t kPer = kGroup / kLine;  // lines of a group
  static constexpr float kUnits = stochastic ? kDrawUnits : 1.0f;

  Source source;
  float inverse;
  float scale;
  const std::uint32_t* pairs;  ///< random bits of the piece

  /// The codes of elements i, i + 1, ..., which are j, j + 1, ... of the piece.
  Words code(std::size_t i, std::size_t j) const noexcept {
    const Register a = source.again(i);
    Register y;
    if constexpr (tiny) {
      y = tiny_units(a, inverse, C::kTop) * kUnits;
    } else {
      y = a * inverse;
    }
    Coded<Register> coded;
    if constexpr (stochastic) {
      coded = C::stochastic(y, load_halves(reinterpret_cast<const unsigned char*>(pairs) + 2 * j));
    } else {
      coded = C::nearest(y);
    }
    source.settle(i, a, scale * coded.level);
    return coded.code;
  }

  /// n elements from i on, a multiple of the group and at most kPiece.
  void piece(std::size_t i, std::size_t n, std::uint8_t* out) const noexcept {
    std::size_t j = 0;
    if constexpr (C::kBits == 8) {
      for (; j + 4 * kStep <= n; j += 4 * kStep) {
        Words part[4];
        for (std::size_t r = 0; r < 4; ++r) part[r] = code(i + j + r * kStep, j + r * kStep);
        const Bytes all = low_bytes(part[0], part[1], part[2], part[3]);
        __builtin_memcpy(out + j, &all, sizeof all);
      }
    }
    for (; j < n; j += kGroup) {
      Words line[kSteps] = {};
      for (std::size_t p = 0; p < kPer; ++p) {
        for (std::size_t r = 0; r < kSteps; ++r) {
          const std::size_t at = j + p * kLine + r * kStep;
          line[r] |= (code(i + at, at) & ((1u << C::kBits) - 1u)) << (C::kBits * static_cast<int>(p));
        }
      }
      store_bytes(line, out + j / kGroup * kLine);
    }
  }
};

/// What the blocks of a call share.
struct EncodeJob {
  std::size_t n;
  std::size_t block;
  const Draw* draw;  ///< null: to nearest
  std::uint8_t* codes;
  F32* scales;
  bool stream;
};

/// One block whose rule is not bad or zero; `place` is that of its first element, for random numbers.
template <Codec codec, bool tiny, bool stochastic, class Source>
void code_block(const Source& source, const Source& tail, const Int8Rule& rule, std::size_t n,
                std::uint64_t seed, std::uint64_t place, CodeSink& sink) noexcept {
  using Code = Coder<codec, Source, tiny, stochastic>;
  alignas(kLineBytes) std::uint32_t pairs[stochastic ? kPiece / 2 : 1];
  const float inverse = tiny ? rule.inverse : rule.inverse * Code::kUnits;
  const std::size_t whole = n / Code::kGroup * Code::kGroup;
  for (std::size_t i = 0; i < whole; i += kPiece) {
    const std::size_t count = whole - i < kPiece ? whole - i : kPiece;
    if constexpr (stochastic) draw_pairs(seed, (place + i) / 2, count / 2, pairs);
    Code{source, inverse, rule.scale, pairs}.piece(i, count, sink.room());
    sink.wrote(code_bytes(codec, count));
  }
  if (whole < n) {
    std::uint8_t last[kLine];
    if constexpr (stochastic) draw_pairs(seed, (place + whole) / 2, Code::kGroup / 2, pairs);
    Code{tail, inverse, rule.scale, pairs}.piece(0, Code::kGroup, last);
    __builtin_memcpy(sink.room(), last, code_bytes(codec, n - whole));
    sink.wrote(code_bytes(codec, n - whole));
  }
}

/// Codes of 0 for one block.
template <Codec codec>
void zero_block(std::size_t n, CodeSink& sink) noexcept {
  for (std::size_t i = 0; i < n; i += kPiece) {
    const std::size_t bytes = code_bytes(codec, n - i < kPiece ? n - i : kPiece);
    __builtin_memset(sink.room(), 0, bytes);
    sink.wrote(bytes);
  }
}

/// Codes one block; returns 1 if it got the scale NaN.
template <Codec codec, bool stochastic, class Source>
std::size_t emit_block(const Source& source, const Source& tail, const Int8Rule& rule, std::size_t n,
                       std::uint64_t seed, std::uint64_t place, CodeSink& sink) noexcept {
  const std::size_t whole = n / group_of(codec) * group_of(codec);
  switch (rule.kind) {
    case Int8Kind::normal:
      code_block<codec, false, stochastic>(source, tail, rule, n, seed, place, sink);
      return 0;
    case Int8Kind::tiny:
      code_block<codec, true, stochastic>(source, tail, rule, n, seed, place, sink);
      return 0;
    case Int8Kind::zero:
      if constexpr (Source::kSettlesZeros) {
        for (std::size_t i = 0; i < whole; i += kStep) source.settle(i, source.again(i), Register{});
        for (std::size_t i = 0; whole + i < n; i += kStep) tail.settle(i, tail.again(i), Register{});
      }
      zero_block<codec>(n, sink);
      return 0;
    case Int8Kind::bad:
      zero_block<codec>(n, sink);
  }
  return 1;
}

/// Encodes all blocks; returns how many got the scale NaN. Two blocks are measured before they are coded:
/// the latency of one's scale, a chain of two divisions, hides behind the other.
template <Codec codec, bool stochastic, class Source>
std::size_t encode_blocks(Source source, const EncodeJob& job) noexcept {
  constexpr std::size_t kGroup = group_of(codec);
  // Measured: more starve the memory while they are coded; but the sums of signs are longer chains.
  constexpr std::size_t kBatch = codec == Codec::sign ? 4 : 2;
  const std::uint64_t seed = stochastic ? draw_seed(job.draw->key) : 0;
  const std::uint64_t origin = stochastic ? job.draw->first : 0;
  CodeSink sink(job.codes, job.stream);
  F32* scales = job.scales;
  std::size_t bad = 0;
  const std::size_t batch = job.block * kBatch <= kPiece ? kBatch * job.block : job.block;
  for (std::size_t first = 0; first < job.n; first += batch) {
    const std::size_t length = job.n - first < batch ? job.n - first : batch;
    const std::size_t whole = length / kGroup * kGroup;
    TailRoom room;
    const Source tail = whole < length ? source.staged(whole, length - whole, room) : source;
    Int8Rule rules[kBatch];
    std::size_t count = 0;
    for (std::size_t at = 0; at < length; at += job.block, ++count) {
      const std::size_t size = length - at < job.block ? length - at : job.block;
      Measure<codec> measure;
      measure.add(source.from(at), size / kGroup * kGroup);
      if (at + size > whole) measure.add(tail, kGroup);
      rules[count] = measure.rule(size);
      *scales++ = rules[count].scale;
    }
    for (std::size_t k = 0, at = 0; k < count; ++k, at += job.block) {
      const std::size_t size = length - at < job.block ? length - at : job.block;
      bad += emit_block<codec, stochastic>(source.from(at), tail, rules[k], size, seed, origin + first + at,
                                           sink);
    }
    if (whole < length) source.unstage(whole, length - whole, room);
    source = source.from(batch);
  }
  sink.finish();
  return bad;
}

/// The same for codecs chosen at run time to round at random, where they can.
template <Codec codec, class Source>
std::size_t encode_all(const Source& source, const EncodeJob& job) noexcept {
  if constexpr (codec == Codec::int8 || codec == Codec::int4 || codec == Codec::int2) {
    if (job.draw != nullptr) return encode_blocks<codec, true>(source, job);
  }
  return encode_blocks<codec, false>(source, job);
}

}  // namespace
}  // namespace pydec
