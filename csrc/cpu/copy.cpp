#include "pydec/copy.h"

#include "cpu/stream.h"

namespace pydec {
namespace {

void stream_f32(const F32* x, F32* out, std::size_t n) noexcept {
  std::size_t i = elements_to_line(out, n);
  __builtin_memcpy(out, x, i * sizeof(float));
  for (; i + kLineElements <= n; i += kLineElements) stream_line(x + i, out + i);
  stream_done();
  __builtin_memcpy(out + i, x + i, (n - i) * sizeof(float));
}

}  // namespace

template <>
const CopyKernels& table<CopyKernels, Target::PYDEC_TARGET>() noexcept {
  static constexpr CopyKernels kernels{.stream_f32 = stream_f32};
  return kernels;
}

}  // namespace pydec
