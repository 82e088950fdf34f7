// Instruction sets that the kernels are compiled for, and which of them is in use.
#pragma once

namespace pydec {

/// x86-64 levels v2 (SSE4.2), v3 (AVX2), v4 (AVX-512); `baseline` is what the compiler targets on
/// every other architecture.
enum class Target : int { v2, v3, v4, baseline };

/// One table of function pointers for each kernel family; csrc/cpu/*.cpp define it once per target.
/// Not inline: two objects compiled for different instruction sets must never share a definition.
template <class Kernels, Target target>
const Kernels& table() noexcept;

/// The target in use; at start the best one that this CPU runs.
Target active_target() noexcept;

/// Use another target from now on. The caller has checked that it is available.
void set_active_target(Target target) noexcept;

/// Compiled in, and this CPU (and its operating system) runs it.
bool is_available(Target target) noexcept;

/// "v2", "v3", "v4" or "baseline".
const char* name_of(Target target) noexcept;

/// Every target that this build contains, from the most portable to the fastest.
#if defined(__x86_64__)
constexpr Target kBuilt[] = {Target::v2, Target::v3, Target::v4};
#else
constexpr Target kBuilt[] = {Target::baseline};
#endif

/// The kernels of the target in use.
template <class Kernels>
const Kernels& active() noexcept {
#if defined(__x86_64__)
  switch (active_target()) {
    case Target::v4:
      return table<Kernels, Target::v4>();
    case Target::v3:
      return table<Kernels, Target::v3>();
    default:
      return table<Kernels, Target::v2>();
  }
#else
  return table<Kernels, Target::baseline>();
#endif
}

}  // namespace pydec
