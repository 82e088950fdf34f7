// Preloaded before libasan in instrumented runs: receives what GCC's -fsanitize-coverage=trace-pc,trace-cmp
// calls.
//
// libFuzzer knows Clang's inline counters, not GCC's trace_pc, and libasan defines libFuzzer's symbols as
// empty functions, which would be found first. So edges count in a table of 8-bit counters that libFuzzer is
// given, and everything else is handed on to libFuzzer once pydec_coverage_start has said where it is; until
// then, nowhere.
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>

namespace {

constexpr std::size_t kCounters = std::size_t{1} << 16;

struct Place {
  std::uintptr_t address;
  std::uintptr_t flags;
};

std::uint8_t counters[kCounters];
Place places[kCounters];  // libFuzzer wants one for each counter

template <class... Arguments>
struct Hook {
  void find(void* library, const char* name) {
    function = reinterpret_cast<void (*)(Arguments...)>(dlsym(library, name));
  }
  void operator()(Arguments... arguments) const {
    if (function != nullptr) function(arguments...);
  }
  void (*function)(Arguments...) = nullptr;
};

using U8 = std::uint8_t;
using U16 = std::uint16_t;
using U32 = std::uint32_t;
using U64 = std::uint64_t;

Hook<void*, void*> counters_init;
Hook<const void*, const void*> pcs_init;
Hook<U8, U8> compare1;
Hook<U16, U16> compare2;
Hook<U32, U32> compare4;
Hook<U64, U64> compare8;
Hook<U64, U64*> branch;

}  // namespace

extern "C" {

/// Hands everything on to the libFuzzer in the library at `path`; returns 0, or 1 if that is not loaded.
int pydec_coverage_start(const char* path) {
  void* library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return 1;
  counters_init.find(library, "__sanitizer_cov_8bit_counters_init");
  pcs_init.find(library, "__sanitizer_cov_pcs_init");
  compare1.find(library, "__sanitizer_cov_trace_cmp1");
  compare2.find(library, "__sanitizer_cov_trace_cmp2");
  compare4.find(library, "__sanitizer_cov_trace_cmp4");
  compare8.find(library, "__sanitizer_cov_trace_cmp8");
  branch.find(library, "__sanitizer_cov_trace_switch");
  for (Place& place : places) place.address = reinterpret_cast<std::uintptr_t>(&place);
  counters_init(counters, counters + kCounters);
  pcs_init(places, places + kCounters);
  return 0;
}

void __sanitizer_cov_trace_pc() {
  const auto from = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  U8& counter = counters[(from ^ (from >> 16)) % kCounters];
  counter = static_cast<U8>(counter + (counter != 255));
}

void __sanitizer_cov_8bit_counters_init(void* first, void* end) {
  counters_init(first, end);
}
void __sanitizer_cov_pcs_init(const void* first, const void* end) {
  pcs_init(first, end);
}
void __sanitizer_cov_trace_cmp1(U8 a, U8 b) {
  compare1(a, b);
}
void __sanitizer_cov_trace_cmp2(U16 a, U16 b) {
  compare2(a, b);
}
void __sanitizer_cov_trace_cmp4(U32 a, U32 b) {
  compare4(a, b);
}
void __sanitizer_cov_trace_cmp8(U64 a, U64 b) {
  compare8(a, b);
}
void __sanitizer_cov_trace_const_cmp1(U8 a, U8 b) {
  compare1(a, b);
}
void __sanitizer_cov_trace_const_cmp2(U16 a, U16 b) {
  compare2(a, b);
}
void __sanitizer_cov_trace_const_cmp4(U32 a, U32 b) {
  compare4(a, b);
}
void __sanitizer_cov_trace_const_cmp8(U64 a, U64 b) {
  compare8(a, b);
}
void __sanitizer_cov_trace_cmpf(float, float) {}
void __sanitizer_cov_trace_cmpd(double, double) {}
void __sanitizer_cov_trace_switch(U64 value, U64* cases) {
  branch(value, cases);
}

}  // extern "C"
