#include "cpu/loop.h"
#include "cpu/pack.h"
#include "cpu/sums.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

constexpr std::size_t kMessages = 4;  // messages that are read side by side

template <Codec codec>
void decode_piece(const std::uint8_t* codes, float scale, std::size_t first, std::size_t n,
                  F32* out) noexcept {
  using C = CodecOf<codec>;
  std::uint8_t room[C::kBits == 8 ? 1 : kPiece];
  const std::uint8_t* code = unpacked<C::kBits>(codes, first, n, room);
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) out[i] = scale * C::level(code[i]);
}

template <Codec codec>
void decode_f32(const std::uint8_t* codes, const F32* scales, std::size_t n, std::size_t block,
                F32* out) noexcept {
  for_pieces(n, block, [=](std::size_t index, std::size_t first, std::size_t count) {
    decode_piece<codec>(codes, scales[index], first, count, out + first);
  });
}

template <Codec codec, std::size_t M>
void accumulate_group(const QuantMessage* messages, std::size_t index, std::size_t first, std::size_t n,
                      F32* out) noexcept {
  using C = CodecOf<codec>;
  std::uint8_t room[M][C::kBits == 8 ? 1 : kPiece];
  const std::uint8_t* code[M];
  float scale[M];
  float weight[M];
  for (std::size_t k = 0; k < M; ++k) {
    code[k] = unpacked<C::kBits>(messages[k].codes, first, n, room[k]);
    scale[k] = messages[k].scales[index];
    weight[k] = messages[k].weight;
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    float total = out[i];
    total = total + weight[0] * (scale[0] * C::level(code[0][i]));
    if constexpr (M > 1) total = total + weight[1] * (scale[1] * C::level(code[1][i]));
    if constexpr (M > 2) total = total + weight[2] * (scale[2] * C::level(code[2][i]));
    if constexpr (M > 3) total = total + weight[3] * (scale[3] * C::level(code[3][i]));
    out[i] = total;
  }
}

template <Codec codec>
void accumulate_f32(const QuantMessage* messages, std::size_t m, std::size_t n, std::size_t block,
                    F32* out) noexcept {
  for_pieces(n, block, [=](std::size_t index, std::size_t first, std::size_t count) {
    F32* target = out + first;
    std::size_t k = 0;
    for (; m - k >= kMessages; k += kMessages) {
      accumulate_group<codec, kMessages>(messages + k, index, first, count, target);
    }
    switch (m - k) {
      case 1:
        return accumulate_group<codec, 1>(messages + k, index, first, count, target);
      case 2:
        return accumulate_group<codec, 2>(messages + k, index, first, count, target);
      case 3:
        return accumulate_group<codec, 3>(messages + k, index, first, count, target);
      default:
        return;
    }
  });
}

template <Codec codec>
double sqdist_f32(const std::uint8_t* codes, const F32* scales, const F32* x, std::size_t n,
                  std::size_t block) noexcept {
  Doubles part[kRegisters] = {};
  double lane[kLanes];
  double total = 0.0;
  const auto end_chunk = [&] {  // with no elements before the first chunk
    __builtin_memcpy(lane, part, sizeof lane);
    total += sum_of_lanes(lane);
    __builtin_memset(part, 0, sizeof part);
  };
  for_pieces(n, block, [&](std::size_t index, std::size_t first, std::size_t count) {
    float value[kPiece];
    decode_piece<codec>(codes, scales[index], first, count, value);
    prefetch_ahead(x + first, count * sizeof(float));
    const SquaredDifference term{value, x + first};
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      if ((first + i) % kChunk == 0) end_chunk();
      for (std::size_t r = 0; r < kRegisters; ++r) term.add(part[r], i + r * kWidth);
    }
    if (i < count && (first + i) % kChunk == 0) end_chunk();
    __builtin_memcpy(lane, part, sizeof lane);
    for (std::size_t j = 0; i < count; ++i, ++j) term.add(lane[j], i);
  });
  return n > 0 ? total + sum_of_lanes(lane) : 0.0;
}

/// Nonzero bits where one of the codes in a byte is one that no encoder makes; T is a byte or many.
template <Codec codec, class T>
auto invalid(T b) noexcept {
  if constexpr (codec == Codec::int8) {
    return b == 0x80;
  } else if constexpr (codec == Codec::int4) {
    return b & ~(b << 1) & ~(b << 2) & ~(b << 3) & 0x88;
  } else if constexpr (codec == Codec::int2) {
    return b & ~(b << 1) & 0xaa;
  } else if constexpr (codec == Codec::e4m3) {
    return (b & 0x7f) == 0x7f;
  } else {
    return (b & 0x7f) >= 0x7c;
  }
}

/// Whether any byte holds an invalid code.
template <Codec codec>
bool any_invalid(const std::uint8_t* codes, std::size_t bytes) noexcept {
  Lanes found = {};
  std::size_t i = 0;
  for (; i + kCodeLanes <= bytes; i += kCodeLanes) {
    Lanes b;
    __builtin_memcpy(&b, codes + i, sizeof b);
    found |= reinterpret_cast<Lanes>(invalid<codec>(b));
  }
  unsigned any = 0;
  for (std::size_t j = 0; j < kCodeLanes; ++j) any |= found[j];
  for (; i < bytes; ++i) any |= static_cast<unsigned>(invalid<codec>(static_cast<unsigned>(codes[i])));
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
  if (largest >= kInfinityBits || bits_of(float_of(largest) * C::kTop) >= kInfinityBits) faults |= kBadScale;
  const std::size_t bytes = code_bytes(codec, n);
  if constexpr (codec != Codec::sign) faults |= any_invalid<codec>(codes, bytes) ? kBadCode : 0u;
  constexpr std::size_t kGroup = group_of(codec);
  if constexpr (C::kBits < 8) {
    if (n % kGroup == 0) return faults;
    std::uint8_t last[kGroup];
    unpack<C::kBits>(codes + bytes - kCodeLanes, 1, last);
    for (std::size_t j = n % kGroup; j < kGroup; ++j) faults |= last[j] != 0 ? kBadPadding : 0u;
  }
  return faults;
}

}  // namespace

#define PYDEC_EACH_CODEC(f) \
  {f<Codec::int8>, f<Codec::int4>, f<Codec::int2>, f<Codec::sign>, f<Codec::e4m3>, f<Codec::e5m2>}

template <>
const QuantDecoders& table<QuantDecoders, Target::PYDEC_TARGET>() noexcept {
  static constexpr QuantDecoders kernels{.decode_f32 = PYDEC_EACH_CODEC(decode_f32),
                                         .accumulate_f32 = PYDEC_EACH_CODEC(accumulate_f32),
                                         .sqdist_f32 = PYDEC_EACH_CODEC(sqdist_f32),
                                         .check = PYDEC_EACH_CODEC(check)};
  return kernels;
}

}  // namespace pydec
