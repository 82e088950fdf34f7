// What pydec/pool.h promises, as a program that sanitizers can watch; it says what is broken and returns 1.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "pydec/pool.h"

namespace {

using pydec::share_out;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::_Exit(1);
}

struct Sums {
  explicit Sums(std::size_t chunks, std::size_t threads) : values(chunks), used(threads) {}
  std::vector<std::size_t> values;             // one for each chunk, written without a lock
  std::vector<std::vector<std::size_t>> used;  // chunks of each worker, written without a lock
};

/// Every chunk is done exactly once, by workers that do not run into each other, and is visible afterwards.
void check_chunks(std::size_t chunks, std::size_t threads) {
  Sums sums(chunks, threads);
  share_out(
      chunks, threads,
      [](void* at, std::size_t chunk, std::size_t worker) noexcept {
        auto* all = static_cast<Sums*>(at);
        all->values[chunk] += chunk + 1;
        all->used[worker].push_back(chunk);
      },
      &sums);
  std::size_t done = 0;
  for (const auto& mine : sums.used) done += mine.size();
  require(done == chunks, "a chunk was not done once");
  for (std::size_t k = 0; k < chunks; ++k) require(sums.values[k] == k + 1, "a chunk was not done once");
}

/// Helpers take part: two chunks that wait for each other both end.
void check_help() {
  std::atomic<int> met{0};
  share_out(
      2, 2,
      [](void* at, std::size_t, std::size_t) noexcept {
        auto* count = static_cast<std::atomic<int>*>(at);
        count->fetch_add(1);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (count->load() < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
      },
      &met);
  require(met.load() == 2, "no helper came");
}

/// A call inside a chunk, and calls of other threads meanwhile, do their chunks alone.
void check_busy() {
  share_out(4, 2, [](void*, std::size_t, std::size_t) noexcept { check_chunks(5, 2); }, nullptr);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([] {
      for (std::size_t round = 0; round < 300; ++round) check_chunks(1 + round % 17, 1 + round % 5);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void check_fork() {
#if !defined(__SANITIZE_THREAD__)  // which cannot follow threads that a child starts
  const pid_t child = fork();
  if (child == 0) {
    check_help();
    check_chunks(100, 4);
    std::_Exit(0);
  }
  int status = 1;
  require(waitpid(child, &status, 0) == child && status == 0, "a forked child has no helpers");
#endif
}

}  // namespace

int main() {
  check_chunks(0, 4);
  check_chunks(1, 4);
  check_chunks(100, 1);
  for (std::size_t round = 0; round < 2000; ++round) check_chunks(round % 40, 1 + round % 6);
  check_help();
  check_busy();
  check_fork();
  check_help();
  pydec::set_num_threads(3);
  require(pydec::num_threads() == 3, "set_num_threads was not heard");
  require(pydec::default_threads() >= 1, "no thread by default");
  return 0;
}
