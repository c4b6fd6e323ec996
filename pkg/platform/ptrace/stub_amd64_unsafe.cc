#include "pkg/platform/ptrace/stub_amd64_unsafe.h"

#include <sys/mman.h>
#include <sys/syscall.h>

// SAFETY: never executed in place; copied to kStubPage of a stub process, where rip-relative jumps stay inside the
// page. 34 is pause, 11 munmap, 157 prctl (1 PR_SET_PDEATHSIG, 9 SIGKILL), 56 clone (0x10f00: kThreadCloneFlags).
asm(R"(
  .pushsection .rodata
  .balign 16
redoubt_ptrace_stub_start:
redoubt_ptrace_stub_unmap_all:
  movl $11, %eax
  xorl %edi, %edi
  movabsq $0x7fffffffe000, %rsi
  syscall
  int3
redoubt_ptrace_stub_idle:
  movl $34, %eax
  syscall
  jmp redoubt_ptrace_stub_idle
redoubt_ptrace_stub_become_leader:
  movl $157, %eax
  movl $1, %edi
  movl $9, %esi
  xorl %edx, %edx
  xorl %r10d, %r10d
  xorl %r8d, %r8d
  syscall
  movl $56, %eax
  movl $0x10f00, %edi
  xorl %esi, %esi
  xorl %edx, %edx
  syscall
  int3
  jmp redoubt_ptrace_stub_idle
redoubt_ptrace_stub_syscall:
  syscall
  int3
redoubt_ptrace_stub_syscall_done:
  jmp redoubt_ptrace_stub_idle
redoubt_ptrace_stub_end:
  .popsection
)");

extern "C" {
extern const char redoubt_ptrace_stub_start[];
extern const char redoubt_ptrace_stub_unmap_all[];
extern const char redoubt_ptrace_stub_idle[];
extern const char redoubt_ptrace_stub_become_leader[];
extern const char redoubt_ptrace_stub_syscall[];
extern const char redoubt_ptrace_stub_syscall_done[];
extern const char redoubt_ptrace_stub_end[];
}

namespace redoubt::platform::ptrace {
namespace {

static_assert(kThreadCloneFlags == 0x10f00);

Addr InPage(const char* symbol) { return kStubPage + static_cast<Addr>(symbol - redoubt_ptrace_stub_start); }

// SAFETY: the raw system call; the callers pass addresses that are theirs to change.
long RawSyscall(long nr, long a0, long a1, long a2, long a3 = 0, long a4 = 0, long a5 = 0) {
  long result;
  register long r10 asm("r10") = a3;
  register long r8 asm("r8") = a4;
  register long r9 asm("r9") = a5;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(nr), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace

Addr StubIdle() { return InPage(redoubt_ptrace_stub_idle); }
Addr StubSyscall() { return InPage(redoubt_ptrace_stub_syscall); }
Addr StubSyscallDone() { return InPage(redoubt_ptrace_stub_syscall_done); }
Addr StubUnmapAll() { return InPage(redoubt_ptrace_stub_unmap_all); }
Addr StubBecomeLeader() { return InPage(redoubt_ptrace_stub_become_leader); }

bool MapStubPage() {
  long page = static_cast<long>(kStubPage);
  long r =
      RawSyscall(SYS_mmap, page, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (r != page) return false;
  // SAFETY: the page was just mapped writable and the code is far smaller. A loop, since memcpy may be intercepted.
  volatile char* to = reinterpret_cast<volatile char*>(kStubPage);
  for (const char* from = redoubt_ptrace_stub_start; from != redoubt_ptrace_stub_end; from++) *to++ = *from;
  return RawSyscall(SYS_mprotect, page, kPageSize, PROT_READ | PROT_EXEC) == 0;
}

void EnterStub() {
  // SAFETY: nothing of this process is used again; the stub page needs no stack.
  asm volatile("xorl %%esp, %%esp\n\tjmp *%0" : : "r"(StubUnmapAll()));
  __builtin_unreachable();
}

}  // namespace redoubt::platform::ptrace
