// What kernels are written in: CUDA C++, or what stands in for it where there is no GPU.
#pragma once

#if defined(PYDEC_CUDA_EMULATE)

#include "cuda/emulate/simt.h"

#define PYDEC_LAUNCH(kernel, grid, block, stream) ::pydec::simt::launch_of(kernel, grid, block, stream)
/// A variable of the block; an array's type needs a name.
#define PYDEC_SHARED(type, name)  \
  static const char name##_key{}; \
  auto& name = *static_cast<type*>(::pydec::simt::shared(&name##_key, sizeof(type)))
#define PYDEC_CHECK_ALIGNED(address, alignment) ::pydec::simt::check_aligned(address, alignment)

#else

#include <cuda_runtime.h>

#define PYDEC_LAUNCH(kernel, grid, block, stream) kernel<<<grid, block, 0, stream>>>
#define PYDEC_SHARED(type, name) __shared__ type name
#define PYDEC_CHECK_ALIGNED(address, alignment) static_cast<void>(0)

#endif

namespace pydec::cuda {

constexpr unsigned kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

}  // namespace pydec::cuda
