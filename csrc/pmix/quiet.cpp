/// Keeps one report of Open MPI from Slurm: that another rank is dead.
///
/// Open MPI with fault tolerance tells PMIx when it finds a rank dead. Slurm's PMIx plugin ends the whole
/// step at any report of a failure, so the ranks that live on must not tell it. This library is loaded into
/// the global scope before MPI (``pydec/comm/pmix.py``), and the dynamic linker gives Open MPI this function
/// in place of libpmix's. All other events are passed on.

#include <dlfcn.h>

#include <cstddef>

namespace {

// PMIx standard 4, chapter 3 and appendix: PMIX_SUCCESS, PMIX_ERR_NOT_SUPPORTED, PMIX_ERR_PROC_TERM_WO_SYNC.
constexpr int kSuccess = 0;
constexpr int kNotSupported = -47;
constexpr int kTerminatedWithoutSync = -200;

using Notify = int(int, const void*, unsigned char, const void*, std::size_t, void (*)(int, void*), void*);

}  // namespace

/// PMIx_Notify_event of the PMIx standard; pointers are passed on and never followed.
extern "C" __attribute__((visibility("default"))) int PMIx_Notify_event(int status, const void* source,
                                                                        unsigned char range, const void* info,
                                                                        std::size_t n_info,
                                                                        void (*done)(int, void*),
                                                                        void* data) {
  if (status == kTerminatedWithoutSync) return kSuccess;
  auto* next = reinterpret_cast<Notify*>(dlsym(RTLD_NEXT, "PMIx_Notify_event"));
  return next == nullptr ? kNotSupported : next(status, source, range, info, n_info, done, data);
}
