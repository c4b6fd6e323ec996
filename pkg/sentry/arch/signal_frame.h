// Signal frames: how a handler is entered and left on x86-64 Linux (arch/x86/kernel/signal.c's rt_sigframe).
//
// On the guest's stack, upwards from the handler's rsp: the return address (SA_RESTORER), ucontext, siginfo, and above
// them, 64-byte aligned, the XSAVE area with the marks that let a program find its size (sigcontext.h's _fpx_sw_bytes).
#ifndef REDOUBT_PKG_SENTRY_ARCH_SIGNAL_FRAME_H_
#define REDOUBT_PKG_SENTRY_ARCH_SIGNAL_FRAME_H_

#include <signal.h>

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/sentry/usermem/usermem.h"

namespace redoubt::arch {

struct SignalFrameArgs {
  siginfo_t info{};
  SignalAction action;
  SignalSet mask = 0;  // to restore after the handler
  SignalStack stack;   // sigaltstack(2)'s, as it is before delivery
  // Of the last fault, for sigcontext.
  uint64_t trapno = 0;
  uint64_t error_code = 0;
  Addr fault_address = 0;
};

// Builds the frame and points `regs` at the handler. EFAULT, with `regs` unchanged: no room, or no SA_RESTORER (x86-64
// has no other way back). The caller then forces SIGSEGV.
Result<> PushSignalFrame(platform::Registers& regs, const platform::FpState& fp, MemoryIo& memory,
                         const SignalFrameArgs& args);

struct SigreturnState {
  platform::Registers regs{};  // sanitized
  platform::FpState fp;        // sanitized; empty for the initial state
  SignalSet mask = 0;          // never with SIGKILL or SIGSTOP
  SignalStack stack;
};

// rt_sigreturn(2) with the registers at the call. Everything in the frame is the guest's word. EFAULT: unreadable or
// holding what cannot be loaded (MXCSR or XSAVE header bits that are reserved); the caller then forces SIGSEGV.
Result<SigreturnState> PopSignalFrame(const platform::Registers& regs, MemoryIo& memory);

// Bytes of stack that a frame may need: AT_MINSIGSTKSZ.
uint64_t MaxSignalFrameSize();

}  // namespace redoubt::arch

#endif  // REDOUBT_PKG_SENTRY_ARCH_SIGNAL_FRAME_H_
