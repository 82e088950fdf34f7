#include "cpu/decode.h"
#include "cpu/stream.h"
#include "cpu/sums.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

template <Codec codec>
void decode_f32(const std::uint8_t* codes, const F32* scales, std::size_t n, std::size_t block, F32* out,
                bool stream) noexcept {
  Sink<kDecodePiece * sizeof(float)> sink(out, stream);
  for_pieces(n, block, [&](std::size_t index, std::size_t first, std::size_t count) {
    const std::uint8_t* from = codes + first / group_of(codec) * kLine;
    prefetch_ahead<kFarBytes>(from, code_bytes(codec, count));
    decode_piece<codec>(from, scales[index], count, reinterpret_cast<F32*>(sink.room()));
    sink.wrote(count * sizeof(float));
  });
  sink.finish();
}

template <Codec codec>
void accumulate_f32(const QuantMessage* messages, std::size_t m, std::size_t n, std::size_t block,
                    F32* out) noexcept {
  for_pieces(n, block, [=](std::size_t index, std::size_t first, std::size_t count) {
    accumulate_piece<codec>(messages, m, index, first, count, out + first);
  });
}

template <Codec codec>
void sqdist_f32(const std::uint8_t* codes, const F32* scales, const F32* x, std::size_t n, std::size_t block,
                double* sums) noexcept {
  Doubles part[kRegisters] = {};
  double lane[kLanes];
  const auto starts_chunk = [](std::size_t i) { return i % kChunk == 0 && i != 0; };
  const auto end_chunk = [&] {
    __builtin_memcpy(lane, part, sizeof lane);
    *sums++ = sum_of_lanes(lane);
    __builtin_memset(part, 0, sizeof part);
  };
  for_pieces(n, block, [&](std::size_t index, std::size_t first, std::size_t count) {
    float value[kDecodePiece];
    decode_piece<codec>(codes + first / group_of(codec) * kLine, scales[index], count, value);
    prefetch_ahead(x + first, count * sizeof(float));
    const SquaredDifference<float> term{value, x + first};
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      if (starts_chunk(first + i)) end_chunk();
      for (std::size_t r = 0; r < kRegisters; ++r) term.add(part[r], i + r * kWidth);
    }
    if (i < count && starts_chunk(first + i)) end_chunk();
    __builtin_memcpy(lane, part, sizeof lane);
    for (std::size_t j = 0; i < count; ++i, ++j) term.add(lane[j], i);
  });
  if (n > 0) *sums = sum_of_lanes(lane);
}

/// Whether any byte holds an invalid code.
template <Codec codec>
bool any_invalid(const std::uint8_t* codes, std::size_t bytes) noexcept {
  Bytes found[4] = {};
  std::size_t i = 0;
  for (; i + sizeof found <= bytes; i += sizeof found) {
    prefetch_ahead<kFarBytes>(codes + i, sizeof found);
    for (std::size_t k = 0; k < 4; ++k) {
      Bytes b;
      __builtin_memcpy(&b, codes + i + k * sizeof b, sizeof b);
      found[k] |= reinterpret_cast<Bytes>(invalid_codes<codec>(b));
    }
  }
  const Bytes all = (found[0] | found[1]) | (found[2] | found[3]);
  unsigned any = 0;
  for (std::size_t j = 0; j < sizeof all; ++j) any |= all[j];
  for (; i < bytes; ++i) any |= static_cast<unsigned>(invalid_codes<codec>(static_cast<unsigned>(codes[i])));
  return any != 0;
}

template <Codec codec>
unsigned check(const std::uint8_t* codes, const F32* scales, std::size_t n, std::size_t block) noexcept {
  using C = CodecOf<codec>;
  unsigned faults = 0;
  // Scales are not negative, so their bits are ordered like their values, with negative ones, infinity and
  // NaN above all.
  std::uint32_t largest = 0;
  const std::size_t blocks = n / block + (n % block != 0 ? 1 : 0);
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::uint32_t bits = bits_of(scales[b]);
    largest = bits > largest ? bits : largest;
  }
  if (is_bad_scale(float_of(largest), C::kTop)) faults |= kBadScale;
  const std::size_t bytes = code_bytes(codec, n);
  if constexpr (codec != Codec::sign) faults |= any_invalid<codec>(codes, bytes) ? kBadCode : 0u;
  constexpr std::size_t kGroup = group_of(codec);
  if constexpr (C::kBits < 8) {
    if (n % kGroup == 0) return faults;
    const std::uint8_t* last = codes + bytes - kCodeLanes;
    for (std::size_t j = n % kGroup; j < kGroup; ++j) {
      const unsigned code = last[j % kCodeLanes] >> (static_cast<std::size_t>(C::kBits) * (j / kCodeLanes));
      faults |= (code & ((1u << C::kBits) - 1u)) != 0 ? kBadPadding : 0u;
    }
  }
  return faults;
}

}  // namespace

template <>
const QuantDecoders& table<QuantDecoders, Target::PYDEC_TARGET>() noexcept {
  static constexpr QuantDecoders kernels{.decode_f32 = PYDEC_EACH_CODEC(decode_f32),
                                         .accumulate_f32 = PYDEC_EACH_CODEC(accumulate_f32),
                                         .sqdist_f32 = PYDEC_EACH_CODEC(sqdist_f32),
                                         .check = PYDEC_EACH_CODEC(check)};
  return kernels;
}

}  // namespace pydec
