#include "pkg/platform/ptrace/fault_amd64.h"

#include <signal.h>

namespace redoubt::platform::ptrace {
namespace {

// Page-fault error code (SDM vol. 3, 4.7).
constexpr uint64_t kPresent = 1;
constexpr uint64_t kWriteAccess = 2;
constexpr uint64_t kUserMode = 4;
constexpr uint64_t kFetch = 16;

constexpr uint64_t kMaxInstruction = 15;

void DescribePageFault(const Registers& regs, TrapInfo& info) {
  Addr addr = reinterpret_cast<Addr>(info.signal.addr);
  bool present = info.signal.signo == SIGSEGV && info.signal.code == SEGV_ACCERR;
  info.trapno = kTrapPageFault;
  info.error_code = kUserMode | (present ? kPresent : 0);
  // A fetch faults at rip or, if the instruction crosses into the next page, at that page's start.
  bool at_rip = addr == regs.rip;
  bool next_page = IsPageAligned(addr) && addr > regs.rip && addr - regs.rip < kMaxInstruction;
  if (at_rip) {
    info.access = kExecute;
    info.error_code |= kFetch;
  } else if (present) {
    // Mapped pages are readable: a write, or the tail of an instruction.
    info.access = next_page ? kRead : kWrite;
    info.access_known = !next_page;
    if (!next_page) info.error_code |= kWriteAccess;
  } else {
    info.access = kRead;
    info.access_known = false;
  }
}

}  // namespace

void DescribeFault(const Registers& regs, TrapInfo& info) {
  const TrapInfo::Signal& signal = info.signal;
  switch (signal.signo) {
    case SIGSEGV:
      if (signal.code == SEGV_MAPERR || signal.code == SEGV_ACCERR || signal.code == SEGV_PKUERR) {
        DescribePageFault(regs, info);
      } else {
        info.trapno = kTrapGeneralProtection;
      }
      break;
    case SIGBUS:
      if (signal.code == BUS_ADRALN) {
        info.trapno = kTrapAlignment;
      } else {
        DescribePageFault(regs, info);
      }
      break;
    case SIGFPE:
      if (signal.code == FPE_INTDIV || signal.code == FPE_INTOVF) {
        info.trapno = kTrapDivide;
      } else {
        // Which unit raised it shows in the control words only; SSE is what compilers use.
        info.trapno = kTrapSimd;
      }
      break;
    case SIGILL:
      info.trapno = kTrapInvalidOpcode;
      break;
    case SIGTRAP:
      info.trapno = signal.code == SI_KERNEL ? kTrapBreakpoint : kTrapDebug;
      break;
    default:
      break;
  }
}

}  // namespace redoubt::platform::ptrace
