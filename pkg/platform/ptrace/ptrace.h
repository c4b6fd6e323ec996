// The ptrace platform: guest code in stub processes, its system calls trapped with PTRACE_SYSEMU. Runs wherever
// ptrace(2) does; each trap costs two context switches of the host.
//
// Who may wait for what: Switch waits for guest code inside a fiber::BlockingRegion. Everything else waits only for
// stub code, some tens of microseconds, and blocks its OS thread meanwhile, so that memory can be mapped under locks.
//
// Differences from hardware that guests can see:
// - Reads and writes of unmapped pages cannot be told apart (TrapInfo::access_known).
// - int 0x80 and sysenter raise SIGSEGV: there are no 32-bit system calls.
// - A segment base in the kernel's half raises SIGSEGV when the guest is next entered.
//
// Lock order: see stub_process.h and context.h; no two of the locks are held together.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_PTRACE_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_PTRACE_H_

#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform::ptrace {

// Forks the stub template, so call it early and while nothing of the caller's is worth hiding. EBADF without a memory
// file.
Result<std::unique_ptr<Platform>> Create(const Requirements& requirements);

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_PTRACE_H_
