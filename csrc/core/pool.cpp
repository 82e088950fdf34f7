#include "pydec/pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

namespace pydec {
namespace {

// A helper spins this long before it sleeps, so that the next kernel of a step finds it awake; a caller
// that waits for the last chunks spins as long before it gives its core to whoever holds them. Waking takes
// the system 5 to 50 us.
constexpr std::chrono::microseconds kSpin{20};

inline void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits for ready() without sleeping, at most kSpin; returns the last ready().
template <class Ready>
bool spin_until(const Ready& ready) noexcept {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

struct Job {
  std::size_t chunks = 0;
  std::size_t helpers = 0;
  Chunk work = nullptr;
  void* context = nullptr;
};

class Pool {
 public:
  /// Returns false, with nothing done, if the helpers are busy.
  bool run(const Job& job) noexcept {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    start(job.helpers);
    std::size_t asleep = 0;
    {
      const std::lock_guard lock(mutex_);
      job_ = job;
      open_ = true;
      entered_ = 0;
      next_.store(0, std::memory_order_relaxed);
      posted_.fetch_add(1, std::memory_order_release);
      const std::size_t awake = started_ - asleep_;
      asleep = std::min(asleep_, job.helpers - std::min(job.helpers, awake));
    }
    for (; asleep > 0; --asleep) wake_.notify_one();
    take(job, 0);
    {
      const std::lock_guard lock(mutex_);
      open_ = false;
    }
    const auto all_left = [this] { return inside_.load(std::memory_order_acquire) == 0; };
    if (!spin_until(all_left)) {
      std::unique_lock lock(mutex_);
      left_.wait(lock, all_left);
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  /// Brings the helpers up to this number, or as near as the system lets it.
  void start(std::size_t helpers) noexcept {
    if (started_ >= helpers) return;
    // A signal is to reach the thread that waits for it, the interpreter's, unless it is a fault of the
    // helper.
    sigset_t most;
    sigset_t before;
    sigfillset(&most);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&most, fault);
    pthread_sigmask(SIG_SETMASK, &most, &before);
    try {
      for (; started_ < helpers; ++started_) std::thread([this] { serve(); }).detach();
    } catch (const std::exception&) {  // fewer helpers, or none: the caller does what they leave
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void take(const Job& job, std::size_t worker) noexcept {
    for (;;) {
      const std::size_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= job.chunks) return;
      job.work(job.context, chunk, worker);
    }
  }

  /// The life of a helper.
  [[noreturn]] void serve() noexcept {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "pydec-kernel");
#endif
    std::uint64_t seen = 0;
    for (;;) {
      const auto posted = [&] { return posted_.load(std::memory_order_acquire) != seen; };
      spin_until(posted);
      Job job;
      std::size_t worker = 0;
      {
        std::unique_lock lock(mutex_);
        ++asleep_;
        wake_.wait(lock, posted);
        --asleep_;
        seen = posted_.load(std::memory_order_relaxed);
        if (!open_ || entered_ == job_.helpers) continue;
        job = job_;
        worker = ++entered_;
        inside_.fetch_add(1, std::memory_order_relaxed);
      }
      take(job, worker);
      const std::lock_guard lock(mutex_);
      if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};  // held by the call that uses the helpers
  std::size_t started_ = 0;        // belongs to that call
  std::mutex mutex_;
  std::condition_variable wake_;  // a job was posted
  std::condition_variable left_;  // the last helper left the job
  Job job_;
  bool open_ = false;        // helpers may still enter the job
  std::size_t entered_ = 0;  // helpers that did
  std::size_t asleep_ = 0;   // helpers that wait for wake_
  std::atomic<std::uint64_t> posted_{0};
  std::atomic<std::size_t> inside_{0};  // helpers that have entered and not left
  std::atomic<std::size_t> next_{0};    // first chunk that nobody has taken
};

// Never destroyed: helpers may sleep in it until the process is gone.
std::atomic<Pool*> current{nullptr};
std::atomic<std::size_t> chosen{0};

/// In a child that fork made: its parent's helpers do not exist here, and its locks may be held for ever.
void forget() noexcept {
  current.store(nullptr, std::memory_order_relaxed);
}

const int watching = pthread_atfork(nullptr, nullptr, forget);

Pool* pool() noexcept {
  Pool* found = current.load(std::memory_order_acquire);
  if (found != nullptr || watching != 0) return found;
  auto* made = new (std::nothrow) Pool;
  if (made == nullptr || current.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return made;
  delete made;  // another thread was first
  return found;
}

}  // namespace

void share_out(std::size_t chunks, std::size_t threads, Chunk work, void* context) noexcept {
  const std::size_t wanted = std::min({chunks, threads, kMaxThreads});
  if (wanted > 1) {
    Pool* const helpers = pool();
    if (helpers != nullptr && helpers->run({chunks, wanted - 1, work, context})) return;
  }
  for (std::size_t chunk = 0; chunk < chunks; ++chunk) work(context, chunk, 0);
}

std::size_t num_threads() noexcept {
  const std::size_t n = chosen.load(std::memory_order_relaxed);
  if (n != 0) return n;
  std::size_t none = 0;
  chosen.compare_exchange_strong(none, default_threads(), std::memory_order_relaxed);
  return chosen.load(std::memory_order_relaxed);
}

void set_num_threads(std::size_t n) noexcept {
  chosen.store(n, std::memory_order_relaxed);
}

}  // namespace pydec
