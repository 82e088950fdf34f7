// How many threads a process takes unless it is told.
#include <algorithm>
#include <cstdlib>
#include <thread>

#include "pydec/pool.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace pydec {
namespace {

/// CPUs that this process may run on.
std::size_t cpus() noexcept {
#if defined(__linux__)
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) return static_cast<std::size_t>(CPU_COUNT(&mask));
#endif
  return std::thread::hardware_concurrency();  // 0 if unknown; also where there are more than a mask holds
}

/// Ranks on this node, as Open MPI, MPICH and Intel MPI, MVAPICH, Cray's launcher and Slurm tell them.
/// Slurm's list may be "4(x2),3": a node that has fewer than the first gets a thread too few.
std::size_t local_ranks() noexcept {
  constexpr const char* kNames[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS",
                                    "MV2_COMM_WORLD_LOCAL_SIZE",  "PALS_LOCAL_SIZE",
                                    "SLURM_NTASKS_PER_NODE",      "SLURM_TASKS_PER_NODE"};
  for (const char* name : kNames) {
    const char* text = std::getenv(name);
    if (text == nullptr) continue;
    const long ranks = std::strtol(text, nullptr, 10);
    if (ranks > 0) return static_cast<std::size_t>(ranks);
  }
  return 1;
}

}  // namespace

std::size_t default_threads() noexcept {
  return std::clamp(cpus() / local_ranks(), std::size_t{1}, kMaxThreads);
}

}  // namespace pydec
