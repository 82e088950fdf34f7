#include "pydec/int8.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

constexpr std::size_t kGroup = 4;  // messages that are read side by side

std::uint32_t largest_magnitude(const F32* x, std::size_t n) noexcept {
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bits = magnitude_bits(x[i]);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/// One block; returns 1 if it holds a NaN or an infinity.
std::size_t encode_block(const F32* x, std::size_t n, std::int8_t* codes, F32* scale_out) noexcept {
  const Int8Rule rule = int8_rule(largest_magnitude(x, n));
  *scale_out = rule.scale;
  const float inverse = rule.inverse;
  switch (rule.kind) {
    case Int8Kind::normal:
      PYDEC_INDEPENDENT
      for (std::size_t i = 0; i < n; ++i) codes[i] = int8_code(x[i], inverse);
      return 0;
    case Int8Kind::tiny:
      for (std::size_t i = 0; i < n; ++i) codes[i] = int8_code_tiny(x[i], inverse);
      return 0;
    default:
      __builtin_memset(codes, 0, n);
      return rule.kind == Int8Kind::bad ? 1 : 0;
  }
}

std::size_t encode_f32(const F32* x, std::size_t n, std::size_t block, std::int8_t* codes,
                       F32* scales) noexcept {
  std::size_t bad = 0;
  for (std::size_t first = 0; first < n; first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    prefetch_ahead(x + first, length * sizeof(float));
    bad += encode_block(x + first, length, codes + first, scales++);
  }
  return bad;
}

void decode_f32(const std::int8_t* codes, const F32* scales, std::size_t n, std::size_t block,
                F32* out) noexcept {
  for (std::size_t first = 0; first < n; first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    const std::int8_t* code = codes + first;
    F32* target = out + first;
    const float scale = *scales++;
    PYDEC_INDEPENDENT
    for (std::size_t i = 0; i < length; ++i) target[i] = int8_value(scale, code[i]);
  }
}

template <std::size_t M>
void accumulate_block(const Int8Message* messages, std::size_t index, std::size_t first, std::size_t n,
                      F32* out) noexcept {
  const std::int8_t* code[M];
  float scale[M];
  float weight[M];
  for (std::size_t k = 0; k < M; ++k) {
    code[k] = messages[k].codes + first;
    scale[k] = messages[k].scales[index];
    weight[k] = messages[k].weight;
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    float total = out[i];
    total = total + weight[0] * int8_value(scale[0], code[0][i]);
    if constexpr (M > 1) total = total + weight[1] * int8_value(scale[1], code[1][i]);
    if constexpr (M > 2) total = total + weight[2] * int8_value(scale[2], code[2][i]);
    if constexpr (M > 3) total = total + weight[3] * int8_value(scale[3], code[3][i]);
    out[i] = total;
  }
}

void accumulate_f32(const Int8Message* messages, std::size_t m, std::size_t n, std::size_t block,
                    F32* out) noexcept {
  for (std::size_t index = 0, first = 0; first < n; ++index, first += block) {
    const std::size_t length = n - first < block ? n - first : block;
    F32* target = out + first;
    std::size_t k = 0;
    for (; m - k >= kGroup; k += kGroup) {
      accumulate_block<kGroup>(messages + k, index, first, length, target);
    }
    switch (m - k) {
      case 1:
        accumulate_block<1>(messages + k, index, first, length, target);
        break;
      case 2:
        accumulate_block<2>(messages + k, index, first, length, target);
        break;
      case 3:
        accumulate_block<3>(messages + k, index, first, length, target);
        break;
      default:
        break;
    }
  }
}

}  // namespace

template <>
const Int8Kernels& table<Int8Kernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr Int8Kernels kernels{
      .encode_f32 = encode_f32, .decode_f32 = decode_f32, .accumulate_f32 = accumulate_f32};
  return kernels;
}

}  // namespace pydec
