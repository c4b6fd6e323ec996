// What ptrace(2) makes of a task: who traces it, what he asked for, and where it stopped for him.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_TRACE_H_
#define REDOUBT_PKG_SENTRY_KERNEL_TRACE_H_

#include <signal.h>

#include <array>
#include <cstdint>

#include "pkg/platform/platform.h"

namespace redoubt::kernel {

class Task;

// Of a tracee; made when it is first traced. Guarded by Kernel::mu.
struct Trace {
  Task* tracer = nullptr;  // null: no longer traced
  bool seized = false;     // by PTRACE_SEIZE, not PTRACE_ATTACH or PTRACE_TRACEME
  uint32_t options = 0;    // PTRACE_O_*

  // In a ptrace-stop: the task is parked, its registers are complete, and the tracer may change them and what follows.
  bool stopped = false;
  bool listening = false;   // PTRACE_LISTEN: still parked, but not the tracer's to change
  bool reportable = false;  // wait(2) has not seen the stop
  int code = 0;             // of the stop, as wait(2) has it in the bits from 8 up
  bool has_info = false;    // all but the group-stops of who was not seized have a siginfo
  siginfo_t info{};
  uint64_t message = 0;  // PTRACE_GETEVENTMSG
  platform::FpState fp;
  bool fp_changed = false;
  int signal = 0;  // that the task gets when it goes on

  bool trap_pending = false;  // it is to stop with PTRACE_EVENT_STOP, or again for a group stop
  bool killed = false;        // by SIGKILL, after which it stops no more
  bool stepping = false;      // the trap flag in the registers is ours, for PTRACE_SINGLESTEP or a watchpoint
  // The debug registers (SDM vol. 3, 17.2). There are none of the processor's: the task goes by single steps while one
  // is in use, and what is watched is compared. `watched`: what it was; the task's own.
  std::array<uint64_t, 8> debug{};
  std::array<uint64_t, 4> watched{};
  bool dead = false;  // a thread, not the leader, that has exited and waits for the tracer's wait(2)
};

// What a tracee's way through the loop meets: bits of Task::trace_work_.
inline constexpr uint8_t kTraced = 1;
inline constexpr uint8_t kTraceSyscall = 2;  // stops at entry and exit
inline constexpr uint8_t kTraceEmulate = 4;  // stops at entry, and the call is not made (PTRACE_SYSEMU)
inline constexpr uint8_t kTraceStep = 8;     // the trap flag is set on the way to the guest
inline constexpr uint8_t kTraceWatch = 16;   // so it is for the debug registers

inline constexpr int kDebugStatus = 6;  // DR6
inline constexpr int kDebugControl = 7;
inline constexpr uint64_t kDebugSingleStep = 1 << 14;  // DR6.BS

// One of the four, as the control register has it.
struct DebugBreakpoint {
  bool enabled;
  bool executes;  // not data that is written
  uint64_t length;
};
constexpr DebugBreakpoint BreakpointOf(uint64_t control, int n) {
  const uint64_t bits = control >> (16 + 4 * n);
  constexpr uint64_t kLengths[] = {1, 2, 8, 4};
  return {.enabled = (control >> (2 * n) & 3) != 0, .executes = (bits & 3) == 0, .length = kLengths[bits >> 2 & 3]};
}

// Trace::message at the stops of a system call (linux/ptrace.h, PTRACE_EVENTMSG_...).
inline constexpr uint64_t kMessageSyscallEntry = 1;
inline constexpr uint64_t kMessageSyscallExit = 2;

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_TRACE_H_
