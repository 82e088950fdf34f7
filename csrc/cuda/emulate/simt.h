// Runs CUDA kernels on the CPU, to prove them right where there is no GPU.
//
// A thread block's threads are fibers of one host thread: each runs until it waits for its warp or its block,
// and which one is next is drawn from a seed. Blocks run one after another, in an order drawn from the seed
// too. So results that depend on an order that a GPU does not promise differ from seed to seed. Found at once
// and reported as the launch's error: threads of a block that wait at different barriers or never arrive,
// lanes of a warp that call different warp functions, and vector accesses to unaligned addresses. Shared
// memory starts as garbage; out-of-bounds accesses are AddressSanitizer's to find.
//
// Not covered: blocks that wait for blocks with higher numbers of their own ticket, weak memory order, and
// races between threads of one block without a barrier between them.
#pragma once

#include <cuda_runtime_api.h>
#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __syncthreads() ::pydec::simt::wait_block(__LINE__)

struct alignas(16) float4 {
  float x, y, z, w;
};

namespace pydec::simt {

struct Index {
  unsigned x, y, z;
};

/// Where the running thread is.
struct Here {
  Index thread, block, block_size, grid_size;
};
extern Here here;

constexpr unsigned kWarpSize = 32;
enum class Meeting { sync, shuffle, vote };

/// The number of resident blocks that the launch shapes think of, and the seed of all orders.
void configure(int multiprocessors, std::uint64_t seed) noexcept;

void wait_block(int line);
/// Shows `value` to the warp and returns what all its lanes show, once they all do.
const std::uint64_t* meet(Meeting meeting, unsigned mask, std::uint64_t value);
/// Storage of one __shared__ variable of the running block.
void* shared(const void* variable, std::size_t bytes);
/// Ends the kernel with an error. Never returns, which the compiler is not to know: AddressSanitizer would
/// forget the stack at the call, and take a fiber's for the thread's.
[[gnu::noipa]] void fail(const char* what);
void check_aligned(const void* address, std::size_t alignment);

using Body = void (*)(void* arguments);
void launch(unsigned grid_x, unsigned grid_y, unsigned block, Body body, void* arguments) noexcept;

struct Grid {
  Grid(unsigned columns) : x(columns) {}  // NOLINT: as CUDA's dim3
  Grid(unsigned columns, unsigned rows) : x(columns), y(rows) {}
  unsigned x;
  unsigned y = 1;
};

template <class... Parameter>
struct Launch {
  void (*kernel)(Parameter...);
  Grid grid;
  unsigned block;

  template <class... Argument>
  void operator()(Argument&&... argument) const {
    struct Call {
      void (*kernel)(Parameter...);
      std::tuple<Parameter...> arguments;
    } call{kernel, std::tuple<Parameter...>(argument...)};
    launch(
        grid.x, grid.y, block,
        [](void* held) { std::apply(static_cast<Call*>(held)->kernel, static_cast<Call*>(held)->arguments); },
        &call);
  }
};

template <class... Parameter>
Launch<Parameter...> launch_of(void (*kernel)(Parameter...), Grid grid, unsigned block, cudaStream_t) {
  return {kernel, grid, block};
}

template <class T>
std::uint64_t slot_of(T value) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t slot = 0;
  std::memcpy(&slot, &value, sizeof value);
  return slot;
}

/// The value of lane `source(lane)`; a source outside the warp gives the lane's own.
template <class T, class Source>
T shuffle(unsigned mask, T value, Source source) {
  const std::uint64_t* slots = meet(Meeting::shuffle, mask, slot_of(value));
  const unsigned lane = here.thread.x % kWarpSize;
  const unsigned from = source(lane);
  T got;
  std::memcpy(&got, &slots[from < kWarpSize ? from : lane], sizeof got);
  return got;
}

}  // namespace pydec::simt

using dim3 = pydec::simt::Grid;
#define threadIdx (::pydec::simt::here.thread)
#define blockIdx (::pydec::simt::here.block)
#define blockDim (::pydec::simt::here.block_size)
#define gridDim (::pydec::simt::here.grid_size)

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  pydec::simt::meet(pydec::simt::Meeting::sync, mask, 0);
}
template <class T>
T __shfl_sync(unsigned mask, T value, unsigned from) {
  return pydec::simt::shuffle(mask, value, [from](unsigned) { return from; });
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned flip) {
  return pydec::simt::shuffle(mask, value, [flip](unsigned lane) { return lane ^ flip; });
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  return pydec::simt::shuffle(mask, value, [by](unsigned lane) { return lane - by; });
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  return pydec::simt::shuffle(mask, value, [by](unsigned lane) { return lane + by; });
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const std::uint64_t* slots = pydec::simt::meet(pydec::simt::Meeting::vote, mask, predicate != 0);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < pydec::simt::kWarpSize; ++lane) {
    votes |= static_cast<unsigned>(slots[lane]) << lane;
  }
  return votes;
}

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(unsigned x) {
  return __builtin_ffs(static_cast<int>(x));
}
inline void __threadfence() {}

// Fibers change only where they wait, so these are whole.
template <class T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicOr(T* at, T value) {
  const T old = *at;
  *at = old | value;
  return old;
}
template <class T>
T atomicMin(T* at, T value) {
  const T old = *at;
  *at = value < old ? value : old;
  return old;
}
template <class T>
T atomicMax(T* at, T value) {
  const T old = *at;
  *at = value > old ? value : old;
  return old;
}
template <class T>
T atomicExch(T* at, T value) {
  const T old = *at;
  *at = value;
  return old;
}
