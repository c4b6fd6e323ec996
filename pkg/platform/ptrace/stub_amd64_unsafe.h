// The page of code in every stub process: position-independent, uses no memory, so guest threads in the same address
// space can neither change nor misuse it. The guest may jump into it; its system calls are trapped there as anywhere.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_STUB_AMD64_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_STUB_AMD64_UNSAFE_H_

#include "pkg/hostarch/hostarch.h"

namespace redoubt::platform::ptrace {

// Where it is mapped: the last page of user space.
inline constexpr Addr kStubPage = 0x7fffffffe000;
// What guests may use ends lower, so that the page can grow.
inline constexpr Addr kMaxUserAddress = 0x7ffffffe0000;
inline constexpr Addr kMinUserAddress = 0x10000;

// Sleeps for ever: what an untraced stub thread does.
Addr StubIdle();
// Executes `syscall` with the registers as they are, then int3.
Addr StubSyscall();
// rip at the stop for that int3.
Addr StubSyscallDone();
// Unmaps all but the stub page, then int3 with munmap's result.
Addr StubUnmapAll();
// Asks to be killed with the parent, clones a thread that has nothing to do, then int3.
Addr StubBecomeLeader();

// Maps the stub page into the calling process at kStubPage, replacing what was there. For the child of a fork: no libc
// state is used. False if the host refuses.
[[gnu::no_sanitize("address", "undefined")]] bool MapStubPage();
// Leaves C++ for StubUnmapAll.
[[noreturn, gnu::no_sanitize("address", "undefined")]] void EnterStub();

// clone(2)'s flags for a thread of a stub process.
inline constexpr unsigned long kThreadCloneFlags =
    0x100 | 0x200 | 0x400 | 0x800 | 0x10000;  // VM | FS | FILES | SIGHAND | THREAD

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_STUB_AMD64_UNSAFE_H_
