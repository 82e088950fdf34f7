// A fiber is a stack and a place in a program. Changing to another one keeps the registers that a function
// call keeps.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace pydec::simt {

#if defined(__x86_64__)
// ucontext asks the kernel for the signal mask at every change, which would take most of the time.
extern "C" void pydec_simt_change(void** from, void* to);
asm(R"(
.text
.local pydec_simt_change
pydec_simt_change:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

struct Fiber {
  void* place = nullptr;

  void start(char* stack, std::size_t bytes, void (*entry)()) {
    // As if `entry` had been called from nowhere, and interrupted at once: its return address, then its own
    // address, then six registers. After a call the stack is 8 off a multiple of 16.
    auto** top = reinterpret_cast<void**>(stack + bytes - 64);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
    place = top - 8;
  }
};

inline void change(Fiber& from, Fiber& to) {
  pydec_simt_change(&from.place, to.place);
}
#else
struct Fiber {
  ucontext_t context;

  void start(char* stack, std::size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
};

inline void change(Fiber& from, Fiber& to) {
  swapcontext(&from.context, &to.context);
}
#endif

}  // namespace pydec::simt
