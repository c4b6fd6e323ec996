// ptrace(2) on the side of who traces.
#include "pkg/sentry/kernel/ptrace.h"

#include <linux/capability.h>
#include <linux/sched.h>
#include <sys/ptrace.h>

#include <algorithm>

#include "pkg/platform/registers_amd64.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::kernel {

Result<> CheckPtraceAccess(const Task& caller, const Task& target, AccessBy by) {
  if (&caller.group() == &target.group()) return {};
  RefPtr<const auth::Credentials> t = target.GetCreds();
  if (!t) return Err(ESRCH);
  const auth::Credentials& c = caller.creds();
  if (c.HasCapability(CAP_SYS_PTRACE)) return {};
  const uint32_t uid = by == AccessBy::kRealIds ? c.ruid : c.fsuid;
  const uint32_t gid = by == AccessBy::kRealIds ? c.rgid : c.fsgid;
  if (uid != t->euid || uid != t->suid || uid != t->ruid) return Err(EPERM);
  if (gid != t->egid || gid != t->sgid || gid != t->rgid) return Err(EPERM);
  if (!target.group().dumpable.load()) return Err(EPERM);
  // Nobody takes over capabilities that he has not.
  const auto& own = by == AccessBy::kRealIds ? c.permitted : c.effective;
  if ((t->permitted & ~own) != 0) return Err(EPERM);
  return {};
}

void Task::StopRewriting(mm::MemoryManager& mm) {
  if (platform::Rewriter* rewriter = mm.address_space().rewriter(); rewriter != nullptr) {
    rewriter->Disable();
    mm.DropHidden();
  }
}

void Task::LinkTracerLocked(Task& tracer, bool seized, uint32_t options) {
  if (!trace_) trace_ = std::make_unique<Trace>();
  *trace_ = Trace{.tracer = &tracer, .seized = seized, .options = options};
  tracer.tracees_.push_back(this);
  trace_work_.store(kTraced, std::memory_order_relaxed);
}

void Task::UnlinkTracerLocked() {
  std::erase(trace_->tracer->tracees_, this);
  trace_->tracer = nullptr;
  trace_->trap_pending = false;
  trace_->stopped = false;
  trace_work_.store(0, std::memory_order_relaxed);
  // Of a group stop that it was let out of it is part again.
  if (stop_taken_) {
    stop_taken_ = false;
    group_->stopped_tasks--;
    InterruptLocked();
  }
  if (fiber_) fiber_->Unpark();
}

Result<> Task::TraceMe() {
  {
    sync::MutexLock lock(kernel_.mu);
    Task* tracer = Kernel::ParentThreadLocked(*group_);
    if (IsTracedLocked() || tracer == nullptr) return Err(EPERM);
    LinkTracerLocked(*tracer, false, 0);
  }
  StopRewriting(*mm_);
  return {};
}

Result<> Task::Attach(Task& target, bool seize, uint32_t options) {
  if (&target.group() == group_.get()) return Err(EPERM);
  TRY(CheckPtraceAccess(*this, target, AccessBy::kRealIds));
  RefPtr<mm::MemoryManager> mm;
  bool was_stopped = false;
  {
    sync::MutexLock lock(kernel_.mu);
    if (target.exited_ || target.IsTracedLocked() || !target.mm_) return Err(EPERM);
    mm = target.mm_;
    target.LinkTracerLocked(*this, seize, options);
    if (!seize) (void)kernel_.SendLocked(*target.group_, &target, MakeSigInfo(SIGSTOP, SI_KERNEL));
    // Of a group stop it makes a stop for the tracer.
    was_stopped = target.stop_parked_;
    if (was_stopped) {
      target.trace_->trap_pending = true;
      target.InterruptLocked();
    }
  }
  StopRewriting(*mm);
  if (!was_stopped) return {};
  struct Stops {
    waiter::Queue& queue;
    void RegisterWaiter(waiter::Entry& e) { queue.Register(e); }
    void UnregisterWaiter(waiter::Entry& e) { queue.Unregister(e); }
  } stops{group_->child_events};
  // The request that follows at once may rely on the stop. A signal for the tracer does not undo what has been done.
  (void)wait::Retry(stops, waiter::kIn, fiber::kForever, [&]() -> Result<> {
    sync::MutexLock lock(kernel_.mu);
    if (!target.IsTracedLocked() || target.trace_->tracer != this || target.exited_) return {};
    if (target.trace_->trap_pending) return Err(EAGAIN);
    return {};
  });
  return {};
}

Result<> Task::Resume(Task& tracee, uint8_t work, int signal) {
  if (signal != 0 && !IsValidSignal(signal)) return Err(EIO);
  return WithTracee(tracee, [&](Trace& trace, platform::Registers&) -> Result<> {
    trace.signal = signal;
    tracee.trace_work_.store(kTraced | work, std::memory_order_relaxed);
    trace.stopped = false;
    // And no more: what it does next is not interrupted by that.
    tracee.fiber_->Unpark();
    return {};
  });
}

Result<> Task::Detach(Task& tracee, int signal) {
  if (signal != 0 && !IsValidSignal(signal)) return Err(EIO);
  return WithTracee(tracee, [&](Trace& trace, platform::Registers&) -> Result<> {
    trace.signal = signal;
    tracee.UnlinkTracerLocked();
    return {};
  });
}

Result<> Task::KillTracee(Task& tracee) {
  sync::MutexLock lock(kernel_.mu);
  if (!tracee.IsTracedLocked() || tracee.trace_->tracer != this) return Err(ESRCH);
  return kernel_.SendLocked(*tracee.group_, &tracee, MakeSigInfo(SIGKILL, SI_KERNEL));
}

Result<> Task::InterruptTracee(Task& tracee) {
  sync::MutexLock lock(kernel_.mu);
  if (!tracee.IsTracedLocked() || tracee.trace_->tracer != this || tracee.exited_) return Err(ESRCH);
  Trace& trace = *tracee.trace_;
  if (!trace.seized) return Err(EIO);
  trace.trap_pending = true;
  if (trace.listening) trace.stopped = false;
  tracee.InterruptLocked();
  return {};
}

Result<> Task::Listen(Task& tracee) {
  return WithTracee(tracee, [&](Trace& trace, platform::Registers&) -> Result<> {
    if (!trace.seized || trace.code >> 8 != PTRACE_EVENT_STOP) return Err(EIO);
    trace.listening = true;
    trace.reportable = false;
    // What it would listen for has happened meanwhile.
    if (trace.trap_pending) {
      trace.stopped = false;
      tracee.InterruptLocked();
    }
    return {};
  });
}

Result<SignalSet> Task::GetTraceeMask(Task& tracee) {
  return WithTracee(tracee, [&](Trace&, platform::Registers&) -> Result<SignalSet> {
    return tracee.saved_mask_.value_or(tracee.mask_.load());
  });
}

Result<> Task::SetTraceeMask(Task& tracee, SignalSet mask) {
  return WithTracee(tracee, [&](Trace&, platform::Registers&) -> Result<> {
    tracee.saved_mask_.reset();
    tracee.mask_.store(mask & ~kUnblockable);
    return {};
  });
}

Result<> Task::SetTraceeRegisters(Task& tracee, const platform::Registers& wanted) {
  return WithTracee(tracee, [&](Trace& trace, platform::Registers& regs) -> Result<> {
    platform::Registers now = wanted;
    platform::SanitizeRegisters(now);
    // No other segments are to be had.
    if (now.cs != wanted.cs || now.ss != wanted.ss || now.ds != wanted.ds || now.es != wanted.es ||
        now.fs != wanted.fs || now.gs != wanted.gs) {
      return Err(EIO);
    }
    const Addr limit = kernel_.platform().max_user_address();
    if (now.fs_base >= limit || now.gs_base >= limit) return Err(EIO);
    // Whether a call is made again is told by the registers, as its number and result are: a debugger that calls a
    // function of the program's takes both away, and puts them back.
    if (regs.orig_rax != now.orig_rax || regs.rax != now.rax) {
      const auto code = static_cast<int64_t>(now.rax);
      const bool restarts =
          static_cast<int32_t>(now.orig_rax) >= 0 && trace.message != kMessageSyscallEntry &&
          (code == -int64_t{kErestartsys.value()} || code == -int64_t{kErestartnointr.value()} ||
           code == -int64_t{kErestartnohand.value()} || code == -int64_t{kErestartRestartblock.value()});
      tracee.restart_pending_ = restarts;
      if (restarts) {
        tracee.restart_ = Errno(static_cast<int>(-code));
        tracee.syscall_number_ = now.orig_rax;
      }
    }
    trace.stepping = trace.stepping && (now.eflags & platform::kEflagsTf) == 0;
    regs = now;
    return {};
  });
}

Result<> Task::SetTraceeDebugRegister(Task& tracee, int n, uint64_t value) {
  return WithTracee(tracee, [&](Trace& trace, platform::Registers&) -> Result<> {
    std::array<uint64_t, 8> debug = trace.debug;
    debug[n] = value;
    for (int i = 0; i < 4; i++) {
      const DebugBreakpoint b = BreakpointOf(debug[kDebugControl], i);
      if (i == n && value >= kernel_.platform().max_user_address()) return Err(EINVAL);
      if (!b.enabled) continue;
      const uint64_t kind = debug[kDebugControl] >> (16 + 4 * i) & 3;
      constexpr uint64_t kReads = 3, kPorts = 2;
      if (kind == kPorts || (b.executes && b.length != 1) || debug[i] % b.length != 0) return Err(EINVAL);
      if (kind == kReads) return Err(ENOSPC);
    }
    trace.debug = debug;
    return {};
  });
}

Result<std::vector<siginfo_t>> Task::PeekSignals(Task& tracee, bool shared, uint64_t skip, size_t most) {
  return WithTracee(tracee, [&](Trace&, platform::Registers&) -> Result<std::vector<siginfo_t>> {
    return (shared ? tracee.group_->pending : tracee.pending_).Peek(skip, most);
  });
}

int Task::TracerNumberLocked(const PidNamespace& ns) const {
  return IsTracedLocked() ? trace_->tracer->pid_->In(ns) : 0;
}

std::optional<int> Task::TraceOfChildLocked(const CloneArgs& args) const {
  if (!IsTracedLocked() || (args.flags & CLONE_UNTRACED) != 0) return std::nullopt;
  int event = PTRACE_EVENT_FORK;
  if ((args.flags & CLONE_VFORK) != 0) {
    event = PTRACE_EVENT_VFORK;
  } else if (args.exit_signal != SIGCHLD) {
    event = PTRACE_EVENT_CLONE;
  }
  if ((trace_->options & (1u << event)) != 0) return event;
  if ((args.flags & CLONE_PTRACE) != 0) return 0;
  return std::nullopt;
}

// Kernel::mu is held.
void Task::LoseTraceesLocked() NO_THREAD_SAFETY_ANALYSIS {
  std::vector<RefPtr<Task>> tracees;
  for (Task* t : tracees_) tracees.emplace_back(t);
  for (const RefPtr<Task>& t : tracees) {
    const bool kill = (t->trace_->options & PTRACE_O_EXITKILL) != 0;
    kernel_.ReleaseTraceeLocked(*t);
    if (kill && !t->exited_) (void)kernel_.SendLocked(*t->group_, t.get(), MakeSigInfo(SIGKILL, SI_KERNEL));
  }
}

void Kernel::ReleaseTraceeLocked(Task& tracee) {
  ThreadGroup& group = *tracee.group_;
  const bool by_parent = tracee.trace_->tracer->group_.get() == group.parent;
  tracee.UnlinkTracerLocked();
  if (tracee.trace_->dead) {
    tasks_.erase(tracee.tid());
  } else if (group.leader == &tracee && group.zombie && !by_parent) {
    // The parent is told of the end only now.
    AnnounceZombieLocked(group);
  }
}

}  // namespace redoubt::kernel
