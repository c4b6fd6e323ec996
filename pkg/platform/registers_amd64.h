// What a guest may have in its registers. Whatever sets guest registers from guest bytes (sigreturn, ptrace) or hands
// them to a platform passes them through here.
#ifndef REDOUBT_PKG_PLATFORM_REGISTERS_AMD64_H_
#define REDOUBT_PKG_PLATFORM_REGISTERS_AMD64_H_

#include <optional>

#include "pkg/platform/platform.h"

namespace redoubt::platform {

// Linux's selectors for user segments.
inline constexpr uint64_t kUserCs = 0x33;
inline constexpr uint64_t kUserCs32 = 0x23;
inline constexpr uint64_t kUserDs = 0x2b;

inline constexpr uint64_t kEflagsTf = 0x100;
inline constexpr uint64_t kEflagsDf = 0x400;
inline constexpr uint64_t kEflagsRf = 0x10000;
// CF PF AF ZF SF TF DF OF RF AC: what user code may set (Linux's FIX_EFLAGS).
inline constexpr uint64_t kEflagsUser = 0x50dd5;

// End of the lower canonical half less Linux's guard page.
inline constexpr Addr kTaskSize = 0x7ffffffff000;

// Forces selectors and flags to values that user mode may have. Addresses are not touched.
void SanitizeRegisters(Registers& regs);

// The fault that running with these (sanitized) registers would be for addresses that no user code can have: rip
// outside the lower half, a segment base there. Nothing if they are fine.
std::optional<TrapInfo> CheckRegisters(const Registers& regs);

// A general protection fault: SIGSEGV with SI_KERNEL and no address.
TrapInfo GeneralProtectionFault();

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_REGISTERS_AMD64_H_
