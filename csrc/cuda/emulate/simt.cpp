#include "cuda/emulate/simt.h"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/emulate/fiber.h"

namespace pydec::simt {

Here here;

namespace {

constexpr std::size_t kStackBytes = std::size_t{1} << 18;
constexpr unsigned kMostThreads = 1024;

enum class State { ready, in_warp, in_block, done };

struct Thread {
  Fiber fiber;
  State state = State::done;
  unsigned meetings = 0;  // with its warp so far
};

struct Warp {
  std::uint64_t slots[2][kWarpSize];  // of this meeting and of the one before, which some may still read
  unsigned arrived = 0;
  unsigned lanes = 0;
  Meeting meeting = Meeting::sync;
};

struct Random {
  std::uint64_t state;
  unsigned below(unsigned bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<unsigned>((state >> 33) % bound);
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (std::size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[below(static_cast<unsigned>(i))]);
    }
  }
};

/// Everything about the launch that runs; one at a time.
struct Machine {
  std::mutex busy;
  int multiprocessors = 2;
  std::uint64_t seed = 1;
  std::string error;

  std::unique_ptr<char[]> stacks{
      new char[kStackBytes * kMostThreads]};  // pages that nobody touches cost nothing
  Fiber scheduler;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> ready;
  std::map<const void*, std::vector<char>> shared;
  unsigned running = 0;
  unsigned at_barrier = 0;
  int barrier_line = 0;
  Body body = nullptr;
  void* arguments = nullptr;
  Random random{1};
};

Machine machine;

#if defined(__SANITIZE_ADDRESS__)
void enter(Fiber& from, Fiber& to, const void* stack, std::size_t bytes, bool last) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake, stack, bytes);
  change(from, to);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
const void* main_stack = nullptr;
std::size_t main_bytes = 0;
void arrive() {
  __sanitizer_finish_switch_fiber(nullptr, &main_stack, &main_bytes);
}
/// Fibers that ended in the middle of a kernel have left their frames.
void clear_stacks() {
  __asan_unpoison_memory_region(machine.stacks.get(), kStackBytes * machine.threads.size());
}
void leave(bool last) {
  enter(machine.threads[machine.running].fiber, machine.scheduler, main_stack, main_bytes, last);
}
#else
void enter(Fiber& from, Fiber& to, const void*, std::size_t, bool) {
  change(from, to);
}
void arrive() {}
void clear_stacks() {}
void leave(bool last) {
  enter(machine.threads[machine.running].fiber, machine.scheduler, nullptr, 0, last);
}
#endif

/// Gives the processor back; returns when this thread runs again.
void give_way(State state) {
  machine.threads[machine.running].state = state;
  const unsigned me = machine.running;
  leave(state == State::done);
  machine.running = me;
}

void entry() {
  arrive();
  machine.body(machine.arguments);
  give_way(State::done);
}

void release(unsigned thread) {
  machine.threads[thread].state = State::ready;
  machine.ready.push_back(thread);
}

void run(unsigned thread) {
  machine.running = thread;
  here.thread = {thread, 0, 0};
  enter(machine.scheduler, machine.threads[thread].fiber, machine.stacks.get() + thread * kStackBytes,
        kStackBytes, false);
}

/// Runs one block; false if it ended with an error.
bool run_block(unsigned size) {
  machine.threads.assign(size, Thread());
  machine.warps.assign((size + kWarpSize - 1) / kWarpSize, Warp());
  machine.shared.clear();
  machine.ready.clear();
  machine.at_barrier = 0;
  for (unsigned thread = 0; thread < size; ++thread) {
    machine.threads[thread].fiber.start(machine.stacks.get() + thread * kStackBytes, kStackBytes, entry);
    machine.warps[thread / kWarpSize].lanes |= 1u << thread % kWarpSize;
    release(thread);
  }
  machine.random.shuffle(machine.ready);
  while (!machine.ready.empty() && machine.error.empty()) {
    // The last one, but for a draw: order matters at every wait, and an even draw would be slow.
    if (machine.random.below(8) == 0) {
      std::swap(machine.ready[machine.random.below(static_cast<unsigned>(machine.ready.size()))],
                machine.ready.back());
    }
    const unsigned next = machine.ready.back();
    machine.ready.pop_back();
    run(next);
  }
  if (!machine.error.empty()) return false;
  for (const Thread& thread : machine.threads) {
    if (thread.state == State::done) continue;
    machine.error = thread.state == State::in_block
                        ? "threads wait at __syncthreads of line " + std::to_string(machine.barrier_line) +
                              " for others that never come"
                        : "lanes wait in a warp function for others that never come";
    return false;
  }
  return true;
}

}  // namespace

void configure(int multiprocessors, std::uint64_t seed) noexcept {
  machine.multiprocessors = multiprocessors;
  machine.seed = seed;
}

void fail(const char* what) {
  machine.error = what;
  for (;;) give_way(State::in_block);
}

void check_aligned(const void* address, std::size_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) fail("misaligned vector access");
}

void wait_block(int line) {
  if (machine.at_barrier != 0 && machine.barrier_line != line) {
    fail("threads of a block wait at different __syncthreads");
  }
  machine.barrier_line = line;
  if (++machine.at_barrier < machine.threads.size()) return give_way(State::in_block);
  machine.at_barrier = 0;
  for (unsigned thread = 0; thread < machine.threads.size(); ++thread) {
    if (thread != machine.running) release(thread);
  }
  machine.random.shuffle(machine.ready);
}

const std::uint64_t* meet(Meeting meeting, unsigned mask, std::uint64_t value) {
  const unsigned me = machine.running;
  Warp& warp = machine.warps[me / kWarpSize];
  if (mask != warp.lanes) fail("a warp function's mask is not the whole warp");
  if (warp.arrived != 0 && warp.meeting != meeting) fail("lanes of a warp call different warp functions");
  warp.meeting = meeting;
  std::uint64_t* slots = warp.slots[machine.threads[me].meetings++ % 2];
  slots[me % kWarpSize] = value;
  warp.arrived |= 1u << me % kWarpSize;
  if (warp.arrived != warp.lanes) {
    give_way(State::in_warp);
    return slots;
  }
  warp.arrived = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    const unsigned other = me / kWarpSize * kWarpSize + lane;
    if (other != me && (warp.lanes >> lane & 1u) != 0) release(other);
  }
  return slots;
}

void* shared(const void* variable, std::size_t bytes) {
  std::vector<char>& storage = machine.shared[variable];
  if (storage.empty()) storage.assign(bytes, static_cast<char>(0xcb));
  return storage.data();
}

void launch(unsigned grid_x, unsigned grid_y, unsigned block, Body body, void* arguments) noexcept {
  const std::lock_guard<std::mutex> hold(machine.busy);
  if (grid_x == 0 || grid_y == 0 || block == 0 || block > kMostThreads || grid_y > 65535) {
    machine.error = "a launch of no blocks, or of more than the hardware takes";
    return;
  }
  machine.body = body;
  machine.arguments = arguments;
  machine.random.state = machine.seed;
  here.block_size = {block, 1, 1};
  here.grid_size = {grid_x, grid_y, 1};
  std::vector<std::uint64_t> order(std::size_t{grid_x} * grid_y);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  machine.random.shuffle(order);
  for (const std::uint64_t at : order) {
    here.block = {static_cast<unsigned>(at % grid_x), static_cast<unsigned>(at / grid_x), 0};
    if (!run_block(block)) return clear_stacks();
  }
}

}  // namespace pydec::simt

namespace {
std::string last_error;  // read by cudaGetErrorString after cudaGetLastError has cleared it
}

cudaError_t cudaGetLastError() noexcept {
  if (pydec::simt::machine.error.empty()) return cudaSuccess;
  last_error = pydec::simt::machine.error;
  pydec::simt::machine.error.clear();
  return cudaErrorLaunchFailure;
}

const char* cudaGetErrorString(cudaError_t error) noexcept {
  if (error == cudaErrorInvalidValue) return "invalid argument";
  return error == cudaSuccess ? "no error" : last_error.c_str();
}

cudaError_t cudaGetDeviceCount(int* count) noexcept {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) noexcept {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) noexcept {
  return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) noexcept {
  *value = pydec::simt::machine.multiprocessors;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) noexcept {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) noexcept {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
