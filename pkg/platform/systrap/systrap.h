// The systrap platform: guest code runs natively in stub processes, and what it traps into is code of ours in the same
// process, which talks to the Sentry through shared memory. docs/platforms.md: the protocol and the trust boundary.
//
// Differences from hardware that guests can see:
// - int 0x80 and sysenter raise SIGSEGV: there are no 32-bit system calls.
// - A segment base in the kernel's half raises SIGSEGV when the guest is next entered.
// - wrgsbase by the guest itself is its own affair: rewritten system calls find their thread by gs.
//
// Lock order: see pkg/sync/ranks.h, kSlots and kAddressSpace.
#ifndef REDOUBT_PKG_PLATFORM_SYSTRAP_SYSTRAP_H_
#define REDOUBT_PKG_PLATFORM_SYSTRAP_SYSTRAP_H_

#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform::systrap {

// Forks the stub template, so call it early and while nothing of the caller's is worth hiding. EBADF without a memory
// file; EOPNOTSUPP if the processor or host lacks what this needs (FSGSBASE, syscall user dispatch; it is logged).
Result<std::unique_ptr<Platform>> Create(const Requirements& requirements);

}  // namespace redoubt::platform::systrap

#endif  // REDOUBT_PKG_PLATFORM_SYSTRAP_SYSTRAP_H_
