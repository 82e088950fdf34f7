// Stores past the caches. An ordinary store reads the line before it overwrites it; for outputs larger
// than the caches, which nobody reads again soon, that is a third of a copy's traffic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pydec/element.h"

#if defined(__SSE4_2__)
#include <immintrin.h>
#endif

namespace pydec {
namespace {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kLineElements = kLineBytes / sizeof(float);
template <class Real>
constexpr std::size_t kLineOf = kLineBytes / sizeof(Real);

/// Elements until `out` reaches a cache line; n if it never does, because no element starts one.
template <class Real = float>
std::size_t elements_to_line(const Any<Real>* out, std::size_t n) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(out);
  if (address % sizeof(Real) != 0) return n;
  const std::size_t head = (kLineBytes - address % kLineBytes) % kLineBytes / sizeof(Real);
  return head < n ? head : n;
}

/// Copies one line past the caches; `out` is aligned to it.
inline void stream_line(const void* source, void* place) noexcept {
#if defined(__SSE4_2__)
  const auto* const from = static_cast<const F32*>(source);
  auto* const out = static_cast<F32*>(place);
#endif
#if defined(__AVX512F__)
  _mm512_stream_ps(out, _mm512_loadu_ps(from));
#elif defined(__AVX__)
  for (std::size_t j = 0; j < kLineElements; j += 8) _mm256_stream_ps(out + j, _mm256_loadu_ps(from + j));
#elif defined(__SSE4_2__)
  for (std::size_t j = 0; j < kLineElements; j += 4) _mm_stream_ps(out + j, _mm_loadu_ps(from + j));
#else
  __builtin_memcpy(place, source, kLineBytes);
#endif
}

/// Streamed stores are ordered after this, as other threads see them.
inline void stream_done() noexcept {
#if defined(__SSE4_2__)
  _mm_sfence();
#endif
}

/// Where bytes go, piece by piece: to their place, or to a buffer whose whole lines are streamed there.
template <std::size_t piece>
class Sink {
 public:
  Sink(void* out, bool stream) noexcept : out_(static_cast<std::uint8_t*>(out)), stream_(stream) {}

  /// Room for the next `piece` bytes.
  std::uint8_t* room() noexcept { return stream_ ? buffer_ + held_ : out_; }

  /// That many bytes have been written to the room.
  void wrote(std::size_t n_bytes) noexcept {
    if (!stream_) {
      out_ += n_bytes;
      return;
    }
    held_ += n_bytes;
    if (held_ < piece) return;
    const std::size_t past = reinterpret_cast<std::uintptr_t>(out_) % kLineBytes;
    std::size_t i = (kLineBytes - past) % kLineBytes;
    __builtin_memcpy(out_, buffer_, i);
    for (; i + kLineBytes <= held_; i += kLineBytes) stream_bytes(buffer_ + i, out_ + i);
    __builtin_memmove(buffer_, buffer_ + i, held_ - i);
    out_ += i;
    held_ -= i;
  }

  void finish() noexcept {
    if (!stream_) return;
    __builtin_memcpy(out_, buffer_, held_);
    stream_done();
  }

 private:
  static void stream_bytes(const std::uint8_t* from, std::uint8_t* to) noexcept {
    float line[kLineElements];
    __builtin_memcpy(line, from, sizeof line);
    stream_line(line, to);
  }

  std::uint8_t* out_;
  bool stream_;
  std::size_t held_ = 0;
  alignas(kLineBytes) std::uint8_t buffer_[2 * piece + kLineBytes];
};

}  // namespace
}  // namespace pydec
