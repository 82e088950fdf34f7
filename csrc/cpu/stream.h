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

/// Elements until `out` reaches a cache line; n if it never does, because it is not even aligned to 4.
std::size_t elements_to_line(const F32* out, std::size_t n) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(out);
  if (address % sizeof(float) != 0) return n;
  const std::size_t head = (kLineBytes - address % kLineBytes) % kLineBytes / sizeof(float);
  return head < n ? head : n;
}

/// Copies one line past the caches; `out` is aligned to it.
inline void stream_line(const float* from, F32* out) noexcept {
#if defined(__AVX512F__)
  _mm512_stream_ps(out, _mm512_loadu_ps(from));
#elif defined(__AVX__)
  for (std::size_t j = 0; j < kLineElements; j += 8) _mm256_stream_ps(out + j, _mm256_loadu_ps(from + j));
#elif defined(__SSE4_2__)
  for (std::size_t j = 0; j < kLineElements; j += 4) _mm_stream_ps(out + j, _mm_loadu_ps(from + j));
#else
  __builtin_memcpy(out, from, kLineBytes);
#endif
}

/// Streamed stores are ordered after this, as other threads see them.
inline void stream_done() noexcept {
#if defined(__SSE4_2__)
  _mm_sfence();
#endif
}

}  // namespace
}  // namespace pydec
