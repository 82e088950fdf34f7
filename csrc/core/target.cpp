#include "pydec/target.h"

#include <atomic>

namespace pydec {
namespace {

Target best() noexcept {
  Target found = kBuilt[0];
  for (const Target target : kBuilt) {
    if (is_available(target)) found = target;
  }
  return found;
}

std::atomic<Target>& current() noexcept {
  static std::atomic<Target> target{best()};
  return target;
}

}  // namespace

bool is_available(Target target) noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (target) {
    case Target::v2:
      return __builtin_cpu_supports("x86-64-v2");
    case Target::v3:
      return __builtin_cpu_supports("x86-64-v3");
    case Target::v4:
      return __builtin_cpu_supports("x86-64-v4");
    default:
      return false;
  }
#else
  return target == Target::baseline;
#endif
}

const char* name_of(Target target) noexcept {
  switch (target) {
    case Target::v2:
      return "v2";
    case Target::v3:
      return "v3";
    case Target::v4:
      return "v4";
    default:
      return "baseline";
  }
}

Target active_target() noexcept {
  return current().load(std::memory_order_relaxed);
}

void set_active_target(Target target) noexcept {
  current().store(target, std::memory_order_relaxed);
}

}  // namespace pydec
