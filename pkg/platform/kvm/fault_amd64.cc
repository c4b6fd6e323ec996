#include "pkg/platform/kvm/fault_amd64.h"

#include <signal.h>
#include <string.h>

#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform::kvm {
namespace {

// Page-fault error code (SDM vol. 3, 4.7).
constexpr uint64_t kPresent = 1;
constexpr uint64_t kWriteAccess = 2;
constexpr uint64_t kUserMode = 4;
constexpr uint64_t kFetch = 16;

// Offsets in the XSAVE area (SDM vol. 1, 13.4.1).
constexpr size_t kFcw = 0;
constexpr size_t kFsw = 2;
constexpr size_t kMxcsr = 24;

template <typename T>
T Load(const FpState& fp, size_t offset) {
  T value{};
  if (fp.bytes.size() >= offset + sizeof(value)) memcpy(&value, fp.bytes.data() + offset, sizeof(value));
  return value;
}

// The unmasked exceptions of x87 and SSE have the same bits: invalid, denormal, divide by zero, overflow, underflow,
// inexact (SDM vol. 1, 8.1.3.3 and 10.2.3). In Linux's order.
int FloatCode(uint32_t raised) {
  if ((raised & 0x01) != 0) return FPE_FLTINV;
  if ((raised & 0x04) != 0) return FPE_FLTDIV;
  if ((raised & 0x08) != 0) return FPE_FLTOVF;
  if ((raised & 0x12) != 0) return FPE_FLTUND;
  if ((raised & 0x20) != 0) return FPE_FLTRES;
  return FPE_FLTINV;
}

void Signal(TrapInfo& info, int number, int code, Addr address) {
  info.signal.signo = number;
  info.signal.code = code;
  info.signal.addr = reinterpret_cast<void*>(address);
}

void DescribePageFault(const Exit& exit, TrapInfo& info) {
  // Whether something of ring 0 is mapped there is not the guest's business.
  const bool user = exit.fault_address < kTaskSize;
  const bool present = !user || (exit.error_code & kPresent) != 0;
  Signal(info, SIGSEGV, user && present ? SEGV_ACCERR : SEGV_MAPERR, exit.fault_address);
  info.error_code = (exit.error_code & (kWriteAccess | kFetch)) | kUserMode | (present ? kPresent : 0);
  if ((exit.error_code & kFetch) != 0) {
    info.access = kExecute;
  } else if ((exit.error_code & kWriteAccess) != 0) {
    info.access = kWrite;
  } else {
    info.access = kRead;
  }
}

}  // namespace

TrapInfo DescribeException(const Exit& exit, const Registers& regs, const FpState& fp) {
  TrapInfo info;
  info.trap = Trap::kFault;
  info.trapno = static_cast<uint64_t>(exit.vector);
  info.error_code = exit.error_code;
  switch (exit.vector) {
    case kTrapDivide:
      Signal(info, SIGFPE, FPE_INTDIV, regs.rip);
      break;
    case kTrapDebug:
      Signal(info, SIGTRAP, (regs.eflags & kEflagsTf) != 0 ? TRAP_TRACE : TRAP_BRKPT, regs.rip);
      break;
    case kTrapBreakpoint:
      Signal(info, SIGTRAP, SI_KERNEL, 0);
      break;
    case kTrapInvalidOpcode:
      Signal(info, SIGILL, ILL_ILLOPN, regs.rip);
      break;
    case kTrapPageFault:
      DescribePageFault(exit, info);
      break;
    case kTrapX87:
      Signal(info, SIGFPE, FloatCode(Load<uint16_t>(fp, kFsw) & ~Load<uint16_t>(fp, kFcw) & 0x3f), regs.rip);
      break;
    case kTrapSimd: {
      const uint32_t mxcsr = Load<uint32_t>(fp, kMxcsr);
      Signal(info, SIGFPE, FloatCode(mxcsr & ~(mxcsr >> 7) & 0x3f), regs.rip);
      break;
    }
    case kTrapAlignment:
      Signal(info, SIGBUS, BUS_ADRALN, 0);
      break;
    case 11:  // segment not present
    case 12:  // stack segment
      Signal(info, SIGBUS, SI_KERNEL, 0);
      break;
    default:
      Signal(info, SIGSEGV, SI_KERNEL, 0);
      break;
  }
  return info;
}

}  // namespace redoubt::platform::kvm
