// Threads that kernels share their chunks with.
//
// A call takes part itself and hands chunks to helpers that happen to be free, one at a time: a helper that
// the system has not woken yet, or has taken off its core, delays nobody but the chunk it holds.
#pragma once

#include <cstddef>

namespace pydec {

/// Threads that set_num_threads takes at most.
constexpr std::size_t kMaxThreads = 1024;

/// One chunk of a job; `worker` is below the `threads` of the call, and differs between chunks that run at
/// the same time.
using Chunk = void (*)(void* context, std::size_t chunk, std::size_t worker) noexcept;

/// Calls work(context, chunk, worker) once for every chunk below `chunks`, on at most `threads` threads, the
/// calling one included, and returns when all are done; what they wrote is visible then. Helpers are started
/// when a call first wants them and sleep between calls, with signals blocked. A call that finds the
/// helpers busy with another, or in a process where they cannot be started, does its chunks alone; so does
/// one in a child that fork made while they were busy, which has helpers of its own. Nothing is thrown.
void share_out(std::size_t chunks, std::size_t threads, Chunk work, void* context) noexcept;

/// Threads a kernel uses at most, the calling one included; at first those of default_threads().
std::size_t num_threads() noexcept;

/// Use n threads, 1..kMaxThreads, from now on. The caller has checked n.
void set_num_threads(std::size_t n) noexcept;

/// CPUs that this process may run on, divided by the ranks that the launcher says it started on this node;
/// at least 1.
std::size_t default_threads() noexcept;

}  // namespace pydec
