#include "pkg/platform/registers_amd64.h"

#include <signal.h>

namespace redoubt::platform {

void SanitizeRegisters(Registers& regs) {
  // A far jump may have taken the guest into 32-bit code, where nothing works but faults; that is its own affair.
  if (regs.cs != kUserCs32) regs.cs = kUserCs;
  regs.ss = kUserDs;
  regs.ds = regs.ds == kUserDs ? kUserDs : 0;
  regs.es = regs.es == kUserDs ? kUserDs : 0;
  // A selector here would replace the bases.
  regs.fs = 0;
  regs.gs = 0;
  regs.eflags = (regs.eflags & kEflagsUser) | 0x202;  // bit 1 is always set, IF is on in user mode
}

TrapInfo GeneralProtectionFault() {
  TrapInfo info;
  info.trap = Trap::kFault;
  info.signal.signo = SIGSEGV;
  info.signal.code = SI_KERNEL;
  info.trapno = kTrapGeneralProtection;
  return info;
}

std::optional<TrapInfo> CheckRegisters(const Registers& regs) {
  if (regs.fs_base >= kTaskSize || regs.gs_base >= kTaskSize) return GeneralProtectionFault();
  if (regs.rip < kTaskSize) return std::nullopt;
  // Bits 63 to 47 not all equal: not canonical, hence no page fault.
  int64_t top = static_cast<int64_t>(regs.rip) >> 47;
  if (top != 0 && top != -1) return GeneralProtectionFault();
  TrapInfo info;
  info.trap = Trap::kFault;
  info.signal.signo = SIGSEGV;
  info.signal.code = SEGV_MAPERR;
  info.signal.addr = reinterpret_cast<void*>(regs.rip);
  info.access = kExecute;
  info.trapno = kTrapPageFault;
  info.error_code = 0x14;  // user, instruction fetch
  return info;
}

}  // namespace redoubt::platform
