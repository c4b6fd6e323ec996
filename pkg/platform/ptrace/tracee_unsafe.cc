#include "pkg/platform/ptrace/tracee_unsafe.h"

#include <elf.h>
#include <linux/audit.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>

#include "pkg/platform/ptrace/stub_amd64_unsafe.h"
#include "pkg/platform/registers_amd64.h"

namespace redoubt::platform::ptrace {
namespace {

// New threads and processes are attached from birth; all die with the OS thread that traces them.
constexpr uint64_t kOptions =
    PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;

// SAFETY: every pointer passed down is to a live object of the size that the request writes or reads.
Result<> Request(long request, pid_t tid, uint64_t addr, const void* data) {
  if (::ptrace(static_cast<__ptrace_request>(request), tid, addr, data) < 0) return ErrFromHost();
  return {};
}

bool IsFatalStop(pid_t tid, int signal) {
  if (signal != SIGSEGV && signal != SIGBUS && signal != SIGILL && signal != SIGFPE) return false;
  Result<siginfo_t> info = GetSiginfo(tid);
  return !info || info->si_code > 0;
}

}  // namespace

Result<> Attach(pid_t tid) {
  TRY(Request(PTRACE_SEIZE, tid, 0, reinterpret_cast<void*>(kOptions)));
  TRY(Request(PTRACE_INTERRUPT, tid, 0, nullptr));
  for (;;) {
    Stop stop = TRY(WaitStop(tid));
    if (stop.event() == PTRACE_EVENT_STOP) return {};
    TRY(Continue(tid));
  }
}

Result<> Detach(pid_t tid) { return Request(PTRACE_DETACH, tid, 0, nullptr); }

Result<Registers> GetRegisters(pid_t tid) {
  Registers regs{};
  TRY(Request(PTRACE_GETREGS, tid, 0, &regs));
  return regs;
}

Result<> SetRegisters(pid_t tid, const Registers& regs) { return Request(PTRACE_SETREGS, tid, 0, &regs); }

Registers StubRegisters(Addr rip) {
  Registers regs{};
  regs.rip = rip;
  regs.orig_rax = ~0ull;
  SanitizeRegisters(regs);
  return regs;
}

Result<size_t> GetFpState(pid_t tid, std::span<std::byte> area) {
  iovec iov{area.data(), area.size()};
  TRY(Request(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov));
  return iov.iov_len;
}

Result<> SetFpState(pid_t tid, std::span<const std::byte> area) {
  iovec iov{const_cast<std::byte*>(area.data()), area.size()};
  return Request(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov);
}

Result<siginfo_t> GetSiginfo(pid_t tid) {
  siginfo_t info{};
  TRY(Request(PTRACE_GETSIGINFO, tid, 0, &info));
  return info;
}

Result<uint64_t> GetEventMessage(pid_t tid) {
  unsigned long message = 0;
  TRY(Request(PTRACE_GETEVENTMSG, tid, 0, &message));
  return message;
}

bool IsNativeSyscall(pid_t tid) {
  __ptrace_syscall_info info{};
  Result<> r = Request(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info);
  return r.has_value() && info.op == PTRACE_SYSCALL_INFO_ENTRY && info.arch == AUDIT_ARCH_X86_64;
}

Result<> SetSignalMask(pid_t tid, uint64_t blocked) {
  return Request(PTRACE_SETSIGMASK, tid, sizeof(blocked), &blocked);
}

Result<> Continue(pid_t tid) { return Request(PTRACE_CONT, tid, 0, nullptr); }
Result<> ContinueEmulated(pid_t tid) { return Request(PTRACE_SYSEMU, tid, 0, nullptr); }

Result<Stop> WaitStop(pid_t tid) {
  for (;;) {
    int status = 0;
    if (wait4(tid, &status, __WALL, nullptr) == tid) {
      if (WIFSTOPPED(status)) return Stop(status);
      return Err(ESRCH);
    }
    if (errno != EINTR) return Err(ESRCH);
  }
}

void Reap(pid_t tid) {
  // Polled: a thread whose tracer ends before it does vanishes without waking those who wait for it.
  constexpr long kFirst = 20'000, kMost = 5'000'000;
  for (long pause = kFirst;; pause = std::min(2 * pause, kMost)) {
    int status = 0;
    pid_t r = wait4(tid, &status, __WALL | WNOHANG, nullptr);
    if (r < 0 && errno != EINTR) return;
    if (r == tid && !WIFSTOPPED(status)) return;
    timespec ts{0, pause};
    nanosleep(&ts, nullptr);
  }
}

Result<uint64_t> InjectSyscall(pid_t tid, const SyscallArguments& call) {
  Registers regs = StubRegisters(StubSyscall());
  regs.rax = static_cast<uint64_t>(call.nr);
  regs.rdi = call.args[0];
  regs.rsi = call.args[1];
  regs.rdx = call.args[2];
  regs.r10 = call.args[3];
  regs.r8 = call.args[4];
  regs.r9 = call.args[5];
  TRY(SetRegisters(tid, regs));
  for (;;) {
    TRY(Continue(tid));
    Stop stop = TRY(WaitStop(tid));
    if (stop.event() == 0 && stop.signal() == SIGTRAP) {
      Registers after = TRY(GetRegisters(tid));
      if (after.rip == StubSyscallDone()) {
        if (after.rax > static_cast<uint64_t>(-4096)) return Err(static_cast<int>(-static_cast<int64_t>(after.rax)));
        return after.rax;
      }
    }
    // A signal sent from outside, perhaps for a context that has left: dropped. The host restarts the call by itself.
    if (stop.event() == 0 && IsFatalStop(tid, stop.signal())) return Err(ESRCH);
  }
}

Result<pid_t> RunToClone(pid_t tid, const Registers& regs) {
  TRY(SetRegisters(tid, regs));
  for (;;) {
    TRY(Continue(tid));
    Stop stop = TRY(WaitStop(tid));
    int event = stop.event();
    if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) break;
    if (event == 0 && stop.signal() == SIGTRAP) {
      // The int3 behind it: clone failed.
      Registers after = TRY(GetRegisters(tid));
      if (after.rax > static_cast<uint64_t>(-4096)) return Err(static_cast<int>(-static_cast<int64_t>(after.rax)));
    }
    if (event == 0 && IsFatalStop(tid, stop.signal())) return Err(ESRCH);
  }
  pid_t child = static_cast<pid_t>(TRY(GetEventMessage(tid)));
  for (;;) {
    Stop stop = TRY(WaitStop(child));
    if (stop.event() == PTRACE_EVENT_STOP) return child;
    TRY(Continue(child));
  }
}

}  // namespace redoubt::platform::ptrace
