#include "pydec/cast.h"

#include "cpu/loop.h"

namespace pydec {
namespace {

constexpr std::size_t kMessages = 4;  // messages that are read side by side
constexpr std::size_t kTile = 2048;   // 8 KiB of `out` stay in the first-level cache

template <Half half>
std::uint16_t code_of(float x) noexcept {
  return half == Half::bf16 ? bf16_code(x) : fp16_code(x);
}

template <Half half>
float value_of(std::uint16_t code) noexcept {
  return half == Half::bf16 ? bf16_value(code) : fp16_value(code);
}

template <Half half>
bool is_nonfinite(std::uint16_t code) noexcept {
  constexpr std::int32_t kInfinity = half == Half::bf16 ? 0x7f80 : 0x7c00;
  return (code & 0x7fff) >= kInfinity;
}

template <Half half>
std::size_t count_nonfinite(const U16* codes, std::size_t n) noexcept {
  std::size_t total = 0;
  for (std::size_t first = 0; first < n; first += kTile) {
    const std::size_t end = n - first < kTile ? n : first + kTile;
    std::uint16_t count = 0;  // at most kTile
    for (std::size_t i = first; i < end; ++i) count += is_nonfinite<half>(codes[i]) ? 1 : 0;
    total += count;
  }
  return total;
}

template <Half half>
std::size_t encode_f32(const F32* x, F32* residual, std::size_t n, U16* codes) noexcept {
  std::size_t bad = 0;
  for (std::size_t first = 0; first < n; first += kTile) {
    const std::size_t end = n - first < kTile ? n : first + kTile;
    prefetch_ahead(x + first, (end - first) * sizeof(float));
    if (residual == nullptr) {
      PYDEC_INDEPENDENT
      for (std::size_t i = first; i < end; ++i) codes[i] = code_of<half>(x[i]);
    } else {
      PYDEC_INDEPENDENT
      for (std::size_t i = first; i < end; ++i) {
        const float a = x[i] + residual[i];
        const std::uint16_t code = code_of<half>(a);
        codes[i] = code;
        residual[i] = is_nonfinite<half>(code) ? a : a - value_of<half>(code);
      }
    }
    bad += count_nonfinite<half>(codes + first, end - first);
  }
  return bad;
}

template <Half half>
void decode_f32(const U16* codes, std::size_t n, F32* out) noexcept {
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) out[i] = value_of<half>(codes[i]);
}

template <Half half, std::size_t M>
void accumulate_group(const HalfMessage* messages, std::size_t first, std::size_t n, F32* out) noexcept {
  const U16* code[M];
  float weight[M];
  for (std::size_t k = 0; k < M; ++k) {
    code[k] = messages[k].codes + first;
    weight[k] = messages[k].weight;
  }
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) {
    float total = out[i];
    total = total + weight[0] * value_of<half>(code[0][i]);
    if constexpr (M > 1) total = total + weight[1] * value_of<half>(code[1][i]);
    if constexpr (M > 2) total = total + weight[2] * value_of<half>(code[2][i]);
    if constexpr (M > 3) total = total + weight[3] * value_of<half>(code[3][i]);
    out[i] = total;
  }
}

template <Half half>
void accumulate_f32(const HalfMessage* messages, std::size_t m, std::size_t n, F32* out) noexcept {
  for (std::size_t first = 0; first < n; first += kTile) {
    const std::size_t count = n - first < kTile ? n - first : kTile;
    F32* target = out + first;
    std::size_t k = 0;
    for (; m - k >= kMessages; k += kMessages) {
      accumulate_group<half, kMessages>(messages + k, first, count, target);
    }
    switch (m - k) {
      case 1:
        accumulate_group<half, 1>(messages + k, first, count, target);
        break;
      case 2:
        accumulate_group<half, 2>(messages + k, first, count, target);
        break;
      case 3:
        accumulate_group<half, 3>(messages + k, first, count, target);
        break;
      default:
        break;
    }
  }
}

void narrow_f64(const F64* x, std::size_t n, F32* out) noexcept {
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<float>(x[i]);
}

void widen_f64(const F32* x, std::size_t n, F64* out) noexcept {
  PYDEC_INDEPENDENT
  for (std::size_t i = 0; i < n; ++i) out[i] = x[i];
}

}  // namespace

template <>
const CastKernels& table<CastKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr CastKernels kernels{
      .encode_f32 = {encode_f32<Half::bf16>, encode_f32<Half::fp16>},
      .decode_f32 = {decode_f32<Half::bf16>, decode_f32<Half::fp16>},
      .accumulate_f32 = {accumulate_f32<Half::bf16>, accumulate_f32<Half::fp16>},
      .count_nonfinite = {count_nonfinite<Half::bf16>, count_nonfinite<Half::fp16>},
      .narrow_f64 = narrow_f64,
      .widen_f64 = widen_f64};
  return kernels;
}

}  // namespace pydec
