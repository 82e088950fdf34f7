// Helpers for the files that are compiled once per instruction set.
//
// Everything here and there has internal linkage: an inline function shared between objects of different
// targets could be kept in the version of one that this CPU does not run.
#pragma once

#include <cstddef>
#include <cstdint>

#define PYDEC_PRAGMA(text) _Pragma(#text)

/// The next loop may be vectorised: an output is either one of the inputs, element for element, or apart from
/// all.
#if defined(__clang__)
#define PYDEC_INDEPENDENT PYDEC_PRAGMA(clang loop vectorize(assume_safety) interleave(enable))
#else
#define PYDEC_INDEPENDENT PYDEC_PRAGMA(GCC ivdep)
#endif

namespace pydec {
namespace {

// Far enough that a line arrives before it is needed, near enough that it is still there then.
constexpr std::size_t kAheadBytes = 4096;
// For loops that work at the memory's speed with few registers to spare.
constexpr std::size_t kFarBytes = 8192;

/// Asks for the lines that lie `distance` bytes behind these n_bytes; they need not exist. The hardware stops
/// fetching ahead at page borders and when a loop works on a cached block for a while. Measured: helps loops
/// that read one or two arrays; hurts those that read more or write as much as they read.
template <std::size_t distance = kAheadBytes>
inline void prefetch_ahead(const void* here, std::size_t n_bytes) noexcept {
  const auto from = reinterpret_cast<std::uintptr_t>(here) + distance;  // no pointer: it may lie outside
  for (std::size_t i = 0; i < n_bytes; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(from + i));
}

}  // namespace
}  // namespace pydec
