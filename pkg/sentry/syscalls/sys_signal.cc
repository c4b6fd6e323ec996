// Signals: rt_sigaction(2), rt_sigprocmask(2), kill(2), tgkill(2), sigaltstack(2), rt_sigsuspend(2),
// rt_sigtimedwait(2), ...
#include <signal.h>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

constexpr size_t kSigsetSize = sizeof(SignalSet);
constexpr uint64_t kMinStack = 2048;  // MINSIGSTKSZ

Result<uint64_t> DoTgkill(Task& task, int tgid, int tid, siginfo_t info) {
  int sig = info.si_signo;
  if (sig < 0 || sig > kMaxSignal) return Err(EINVAL);
  RefPtr<Task> target = task.FindTask(tid);
  if (!target || (tgid > 0 && target->group().pid->In(task.pid_ns()) != tgid)) return Err(ESRCH);
  RefPtr<const auth::Credentials> creds = target->GetCreds();
  const auth::Credentials& c = task.creds();
  bool allowed = &target->group() == &task.group() || c.HasCapability(CAP_KILL) || c.euid == creds->suid ||
                 c.euid == creds->ruid || c.ruid == creds->suid || c.ruid == creds->ruid;
  if (!allowed) return Err(EPERM);
  if (sig == 0) return 0;
  TRY(task.kernel().SendToTask(*target, info));
  return 0;
}

// rt_sigqueueinfo(2): a program may not pretend to be the kernel or kill(2), except towards itself.
Result<siginfo_t> CopyInQueuedInfo(Task& task, Addr addr, int sig, int target_tgid) {
  if (!IsValidSignal(sig)) return Err(EINVAL);
  siginfo_t info = TRY(task.mm().CopyInObject<siginfo_t>(addr));
  if ((info.si_code >= 0 || info.si_code == SI_TKILL) && target_tgid != task.group().pid->number()) return Err(EPERM);
  info.si_signo = sig;
  return info;
}

}  // namespace

Result<uint64_t> RtSigaction(Task& task, const SyscallArgs& a) {
  if (a.Size(3) != kSigsetSize) return Err(EINVAL);
  SignalAction action;
  if (a.Pointer(1) != 0) action = TRY(task.mm().CopyInObject<SignalAction>(a.Pointer(1)));
  SignalAction old = TRY(task.SetSignalAction(a.I32(0), a.Pointer(1) != 0 ? &action : nullptr));
  if (a.Pointer(2) != 0) TRY(task.mm().CopyOutObject(a.Pointer(2), old));
  return 0;
}

Result<uint64_t> RtSigprocmask(Task& task, const SyscallArgs& a) {
  if (a.Size(3) != kSigsetSize) return Err(EINVAL);
  SignalSet old = task.signal_mask();
  if (a.Pointer(1) != 0) {
    SignalSet set = TRY(task.mm().CopyInObject<SignalSet>(a.Pointer(1)));
    switch (a.I32(0)) {
      case SIG_BLOCK:
        task.SetSignalMask(old | set);
        break;
      case SIG_UNBLOCK:
        task.SetSignalMask(old & ~set);
        break;
      case SIG_SETMASK:
        task.SetSignalMask(set);
        break;
      default:
        return Err(EINVAL);
    }
  }
  if (a.Pointer(2) != 0) TRY(task.mm().CopyOutObject(a.Pointer(2), old));
  return 0;
}

Result<uint64_t> RtSigpending(Task& task, const SyscallArgs& a) {
  if (a.Size(1) > kSigsetSize) return Err(EINVAL);
  SignalSet pending = task.PendingSet() & task.signal_mask();
  TRY(task.mm().CopyOutAll(a.Pointer(0), std::as_bytes(std::span(&pending, 1)).first(a.Size(1))));
  return 0;
}

Result<uint64_t> RtSigsuspend(Task& task, const SyscallArgs& a) {
  if (a.Size(1) != kSigsetSize) return Err(EINVAL);
  task.SetTemporaryMask(TRY(task.mm().CopyInObject<SignalSet>(a.Pointer(0))));
  while (true) {
    if (Result<> r = wait::Block(); !r) return Err(kErestartnohand);
  }
}

Result<uint64_t> Pause(Task& task, const SyscallArgs&) {
  while (true) {
    if (Result<> r = wait::Block(); !r) return Err(kErestartnohand);
  }
}

Result<uint64_t> RtSigtimedwait(Task& task, const SyscallArgs& a) {
  if (a.Size(3) != kSigsetSize) return Err(EINVAL);
  SignalSet set = TRY(task.mm().CopyInObject<SignalSet>(a.Pointer(0)));
  fiber::Time deadline = fiber::kForever;
  if (a.Pointer(2) != 0) deadline = DeadlineAfter(TRY(CopyInTimespec(task, a.Pointer(2))));
  siginfo_t info = TRY(task.SigTimedWait(set, deadline));
  if (a.Pointer(1) != 0) TRY(task.mm().CopyOutObject(a.Pointer(1), info));
  return info.si_signo;
}

Result<uint64_t> RtSigreturn(Task& task, const SyscallArgs&) {
  TRY(task.SigReturn());
  return 0;
}

Result<uint64_t> Sigaltstack(Task& task, const SyscallArgs& a) {
  SignalStack& current = task.signal_stack();
  bool on_stack = current.Contains(task.regs().rsp) && (current.flags & kAutodisarm) == 0;
  SignalStack old = current;
  if (!old.enabled()) {
    old.flags = SS_DISABLE;
  } else if (on_stack) {
    old.flags |= SS_ONSTACK;
  }
  if (a.Pointer(0) != 0) {
    SignalStack next = TRY(task.mm().CopyInObject<SignalStack>(a.Pointer(0)));
    if (on_stack) return Err(EPERM);
    int mode = next.flags & ~kAutodisarm;
    if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0) return Err(EINVAL);
    if (mode == SS_DISABLE) {
      next.address = 0;
      next.size = 0;
    } else if (next.size < kMinStack) {
      return Err(ENOMEM);
    }
    next.flags &= ~SS_ONSTACK;
    next.pad = 0;
    current = next;
  }
  if (a.Pointer(1) != 0) TRY(task.mm().CopyOutObject(a.Pointer(1), old));
  return 0;
}

Result<uint64_t> Kill(Task& task, const SyscallArgs& a) {
  TRY(task.kernel().Kill(task, a.I32(0), a.I32(1)));
  return 0;
}

Result<uint64_t> Tgkill(Task& task, const SyscallArgs& a) {
  if (a.I32(0) <= 0 || a.I32(1) <= 0) return Err(EINVAL);
  return DoTgkill(task, a.I32(0), a.I32(1),
                  MakeKillInfo(a.I32(2), SI_TKILL, task.group().pid->number(), task.creds().ruid));
}

Result<uint64_t> Tkill(Task& task, const SyscallArgs& a) {
  if (a.I32(0) <= 0) return Err(EINVAL);
  return DoTgkill(task, 0, a.I32(0), MakeKillInfo(a.I32(1), SI_TKILL, task.group().pid->number(), task.creds().ruid));
}

Result<uint64_t> RtSigqueueinfo(Task& task, const SyscallArgs& a) {
  siginfo_t info = TRY(CopyInQueuedInfo(task, a.Pointer(2), a.I32(1), a.I32(0)));
  // Permission as kill(2) has it.
  TRY(task.kernel().Kill(task, a.I32(0), 0));
  RefPtr<kernel::ThreadGroup> group = task.FindGroup(a.I32(0));
  if (!group) return Err(ESRCH);
  TRY(task.kernel().SendToGroup(*group, info));
  return 0;
}

Result<uint64_t> RtTgsigqueueinfo(Task& task, const SyscallArgs& a) {
  if (a.I32(0) <= 0 || a.I32(1) <= 0) return Err(EINVAL);
  siginfo_t info = TRY(CopyInQueuedInfo(task, a.Pointer(3), a.I32(2), a.I32(0)));
  return DoTgkill(task, a.I32(0), a.I32(1), info);
}

}  // namespace redoubt::syscalls
