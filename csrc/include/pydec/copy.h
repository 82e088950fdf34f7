// Copies past the caches: what the memory of a machine can do, and the ruler of the benchmarks.
#pragma once

#include <cstddef>

#include "pydec/element.h"
#include "pydec/target.h"

namespace pydec {

/// Contract of every entry: pointers are valid for the stated length and may be unaligned; input and
/// output do not overlap; nothing is checked, thrown or allocated.
struct CopyKernels {
  /// out[i] = x[i], with stores that do not read the line first nor keep it in a cache.
  void (*stream_f32)(const F32* x, F32* out, std::size_t n) noexcept;
};

}  // namespace pydec
