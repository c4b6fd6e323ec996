// ptrace(2) requests on one stopped thread, with errors as errnos. All but Reap must come from the OS thread that
// traces it.
#ifndef REDOUBT_PKG_PLATFORM_PTRACE_TRACEE_UNSAFE_H_
#define REDOUBT_PKG_PLATFORM_PTRACE_TRACEE_UNSAFE_H_

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"

namespace redoubt::platform::ptrace {

// A stop as wait4(2) reports it.
class Stop final {
 public:
  explicit Stop(int status) : status_(status) {}
  // A trapped system call of a guest.
  bool is_syscall() const { return signal() == (SIGTRAP | 0x80) && event() == 0; }
  // PTRACE_EVENT_*, 0 for other stops.
  int event() const { return status_ >> 16; }
  int signal() const { return (status_ >> 8) & 0xff; }

 private:
  int status_;
};

// Attaches the calling OS thread to a running thread and stops it.
Result<> Attach(pid_t tid);
// Lets it run untraced.
Result<> Detach(pid_t tid);

Result<Registers> GetRegisters(pid_t tid);
// EIO: a value that the host refuses.
Result<> SetRegisters(pid_t tid, const Registers& regs);
// Registers for running stub code at `rip`.
Registers StubRegisters(Addr rip);

// The XSAVE area; returns the bytes used.
Result<size_t> GetFpState(pid_t tid, std::span<std::byte> area);
Result<> SetFpState(pid_t tid, std::span<const std::byte> area);

Result<siginfo_t> GetSiginfo(pid_t tid);
Result<uint64_t> GetEventMessage(pid_t tid);
// True at a system call stop of a 64-bit `syscall` instruction, false for int 0x80 and its like.
bool IsNativeSyscall(pid_t tid);
Result<> SetSignalMask(pid_t tid, uint64_t blocked);

// Runs it natively / with system calls trapped instead of executed. A signal it was stopped for is dropped.
Result<> Continue(pid_t tid);
Result<> ContinueEmulated(pid_t tid);

// Waits for it to stop. ESRCH if it has died, which also reaps it.
Result<Stop> WaitStop(pid_t tid);
// Waits for the death of a child or tracee that was sent SIGKILL, from any OS thread. Fine if someone else reaps it
// meanwhile.
void Reap(pid_t tid);

// Executes a system call in it; it must be stopped, and its registers are lost. The call's own errno, or ESRCH if the
// thread dies of it.
struct SyscallArguments {
  long nr = 0;
  uint64_t args[6] = {};
};
Result<uint64_t> InjectSyscall(pid_t tid, const SyscallArguments& call);

// Runs stub code at `rip` up to the clone in it: the new thread or process, traced by the caller, stopped. `tid` is
// left at the clone's event stop, from where it may be detached or continued.
Result<pid_t> RunToClone(pid_t tid, const Registers& regs);

}  // namespace redoubt::platform::ptrace

#endif  // REDOUBT_PKG_PLATFORM_PTRACE_TRACEE_UNSAFE_H_
