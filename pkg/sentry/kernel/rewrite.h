// Carries out what a platform's Rewriter plans, in a guest's memory.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_REWRITE_H_
#define REDOUBT_PKG_SENTRY_KERNEL_REWRITE_H_

#include <cstdint>

#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/sentry/mm/memory_manager.h"

namespace redoubt::kernel {

// Rewrites the `syscall` instruction at `call`, last made with number `nr`, if it can be. May block on the file that
// the text is of.
void RewriteCall(mm::MemoryManager& mm, Addr call, uint64_t nr);

// After a breakpoint: if it is the int3 that a patch has put where an instruction was, sets rip to that instruction's
// new place. False: it is the guest's own.
bool LandOnPatch(mm::MemoryManager& mm, platform::Registers& regs);

// After a page fault that cannot be cured: if it was the fetch of a trampoline that is no more, sets rip to the guest's
// own instruction that it stood for. False: it is the guest's own.
bool LeaveLostTrampoline(mm::MemoryManager& mm, platform::Registers& regs, Addr fault);

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_REWRITE_H_
