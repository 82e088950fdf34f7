#include "cpu/encode.h"
#include "pydec/quant.h"

namespace pydec {
namespace {

/// A vector.
struct Plain {
  static constexpr bool kSettlesZeros = false;
  const F32* x;

  Plain from(std::size_t n) const noexcept { return {x + n}; }
  void ahead(std::size_t i) const noexcept { prefetch_ahead<kFarBytes>(x + i, 4 * kLine * sizeof(float)); }
  Register first(std::size_t i) const noexcept { return load(x + i); }
  Register again(std::size_t i) const noexcept { return load(x + i); }
  void settle(std::size_t, Register, Register) const noexcept {}
  Plain staged(std::size_t from, std::size_t rest, TailRoom& room) const noexcept {
    return {stage(x + from, rest, room, 0)};
  }
  void unstage(std::size_t, std::size_t, const TailRoom&) const noexcept {}
};

/// x + residual, which overwrites the residual; what is not sent stays there.
struct Feedback {
  static constexpr bool kSettlesZeros = false;  // it stays what it is
  const F32* x;
  F32* residual;

  Feedback from(std::size_t n) const noexcept { return {x + n, residual + n}; }
  void ahead(std::size_t) const noexcept {}  // measured: the hardware does better with two arrays
  Register first(std::size_t i) const noexcept {
    const Register a = load(x + i) + load(residual + i);
    store(a, residual + i);
    return a;
  }
  Register again(std::size_t i) const noexcept { return load(residual + i); }
  void settle(std::size_t i, Register a, Register value) const noexcept { store(a - value, residual + i); }
  Feedback staged(std::size_t from, std::size_t rest, TailRoom& room) const noexcept {
    return {stage(x + from, rest, room, 0), stage(residual + from, rest, room, 1)};
  }
  void unstage(std::size_t from, std::size_t rest, const TailRoom& room) const noexcept {
    __builtin_memcpy(residual + from, room[1], rest * sizeof(float));
  }
};

/// x - y.
struct Difference {
  static constexpr bool kSettlesZeros = false;
  const F32* x;
  const F32* y;

  Difference from(std::size_t n) const noexcept { return {x + n, y + n}; }
  void ahead(std::size_t) const noexcept {}  // measured: the hardware does better with two arrays
  Register first(std::size_t i) const noexcept { return load(x + i) - load(y + i); }
  Register again(std::size_t i) const noexcept { return first(i); }
  void settle(std::size_t, Register, Register) const noexcept {}
  Difference staged(std::size_t from, std::size_t rest, TailRoom& room) const noexcept {
    return {stage(x + from, rest, room, 0), stage(y + from, rest, room, 1)};
  }
  void unstage(std::size_t, std::size_t, const TailRoom&) const noexcept {}
};

template <Codec codec>
std::size_t encode_f32(const F32* x, F32* residual, std::size_t n, std::size_t block, const Draw* draw,
                       std::uint8_t* codes, F32* scales, bool stream) noexcept {
  const EncodeJob job{n, block, draw, codes, scales, stream};
  return residual != nullptr ? encode_all<codec>(Feedback{x, residual}, job)
                             : encode_all<codec>(Plain{x}, job);
}

template <Codec codec>
std::size_t encode_difference_f32(const F32* x, const F32* y, std::size_t n, std::size_t block,
                                  const Draw* draw, std::uint8_t* codes, F32* scales, bool stream) noexcept {
  return encode_all<codec>(Difference{x, y}, {n, block, draw, codes, scales, stream});
}

}  // namespace

template <>
const QuantEncoders& table<QuantEncoders, Target::PYDEC_TARGET>() noexcept {
  static constexpr QuantEncoders kernels{.encode_f32 = PYDEC_EACH_CODEC(encode_f32),
                                         .encode_difference_f32 = PYDEC_EACH_CODEC(encode_difference_f32)};
  return kernels;
}

}  // namespace pydec
