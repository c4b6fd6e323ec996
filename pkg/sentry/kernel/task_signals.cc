// Taking signals: masks, actions, stops, handlers.
#include <sys/syscall.h>

#include "pkg/log/log.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/sentry/arch/signal_frame.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::kernel {

std::optional<siginfo_t> Task::TakePendingLocked(SignalSet allowed) {
  std::optional<siginfo_t> info = pending_.Take(allowed);
  if (!info) info = group_->pending.Take(allowed);
  return info;
}

SignalSet Task::PendingSet() const {
  sync::MutexLock lock(kernel_.mu);
  return pending_.set() | group_->pending.set();
}

void Task::SetSignalMask(SignalSet mask) {
  sync::MutexLock lock(kernel_.mu);
  mask_.store(mask & ~kUnblockable);
  RecomputeInterruptLocked();
  if ((group_->pending.set() & mask) == 0) return;
  // A signal for the process that this task no longer wants: another may.
  for (Task* t : group_->tasks) {
    if (t != this) {
      t->RecomputeInterruptLocked();
      if (t->InterruptPending()) t->InterruptLocked();
    }
  }
}

void Task::SetTemporaryMask(SignalSet mask) {
  saved_mask_ = mask_.load();
  SetSignalMask(mask);
}

Result<SignalAction> Task::SetSignalAction(int sig, const SignalAction* action) {
  if (!IsValidSignal(sig)) return Err(EINVAL);
  if (action != nullptr && (SignalBit(sig) & kUnblockable) != 0) return Err(EINVAL);
  sync::MutexLock lock(kernel_.mu);
  SignalAction& slot = (*group_->handlers)[sig];
  SignalAction old = slot;
  if (action != nullptr) {
    slot = *action;
    slot.mask &= ~kUnblockable;
    // POSIX: setting an ignoring disposition discards what is pending.
    bool ignores = slot.is_ignored() || (slot.is_default() && (DefaultActionOf(sig) == DefaultAction::kIgnore ||
                                                               DefaultActionOf(sig) == DefaultAction::kContinue));
    if (ignores) {
      group_->pending.Discard(SignalBit(sig));
      for (Task* t : group_->tasks) t->pending_.Discard(SignalBit(sig));
    }
  }
  return old;
}

Result<siginfo_t> Task::TakeSignal(SignalSet set) {
  sync::MutexLock lock(kernel_.mu);
  std::optional<siginfo_t> info = TakePendingLocked(set);
  if (!info) return Err(EAGAIN);
  RecomputeInterruptLocked();
  return *info;
}

Result<siginfo_t> Task::SigTimedWait(SignalSet set, fiber::Time deadline) {
  set &= ~kUnblockable;
  while (true) {
    {
      sync::MutexLock lock(kernel_.mu);
      std::optional<siginfo_t> info = TakePendingLocked(set);
      if (info) {
        sigwait_set_ = 0;
        RecomputeInterruptLocked();
        return *info;
      }
      sigwait_set_ = set;
      RecomputeInterruptLocked();
    }
    Result<> blocked = wait::Block(deadline);
    sync::MutexLock lock(kernel_.mu);
    sigwait_set_ = 0;
    if (blocked) continue;
    if (std::optional<siginfo_t> info = TakePendingLocked(set); info) {
      RecomputeInterruptLocked();
      return *info;
    }
    RecomputeInterruptLocked();
    if (blocked.error() == Errno(ETIMEDOUT)) return Err(EAGAIN);
    if (InterruptPending()) return Err(EINTR);
  }
}

void Task::ForceSignal(siginfo_t info) {
  sync::MutexLock lock(kernel_.mu);
  int sig = info.si_signo;
  SignalAction& action = (*group_->handlers)[sig];
  // Blocked or ignored: the program could not go on, so it dies of it (signal(7) leaves it undefined; Linux kills).
  if (action.is_ignored() || (mask_.load() & SignalBit(sig)) != 0) {
    action = SignalAction{};
    mask_.store(mask_.load() & ~SignalBit(sig));
  }
  if (action.is_default()) group_->unkillable = false;
  (void)pending_.Add(info);
  interrupt_.fetch_or(kAttention);
}

// Parks the task for a group stop until SIGCONT or death. Kernel::mu is held on entry and exit, but not while parked.
void Task::StopLocked() NO_THREAD_SAFETY_ANALYSIS {
  stop_parked_ = true;
  CountStopLocked();
  // Who comes to trace it makes another stop of this one.
  while (group_->stopped && !group_->exiting && !(IsTracedLocked() && trace_->trap_pending)) {
    kernel_.mu.Unlock();
    FallAsleep();
    fiber::Park();
    WakeUp();
    kernel_.mu.Lock();
  }
  group_->stopped_tasks--;
  stop_parked_ = false;
}

void Task::ReturnToUser() {
  while (interrupt_.load(std::memory_order_acquire) != 0) {
    (void)regs();  // completes them, which takes locks of the platform's
    siginfo_t info;
    SignalAction action;
    {
      sync::MutexLock lock(kernel_.mu);
      if (group_->exiting || (group_->execing != nullptr && group_->execing != this)) {
        if (!exiting_) exit_status_ = group_->exit_status;
        exiting_ = true;
        return;
      }
      if (MustFreezeLocked()) {
        ParkFrozenLocked();
        continue;
      }
      const bool must_stop = group_->stopped && !stop_taken_;
      if (IsTracedLocked() && (must_stop || trace_->trap_pending)) {
        TrapStopLocked();
        continue;
      }
      if (must_stop) {
        StopLocked();
        continue;
      }
      std::optional<siginfo_t> taken = TakePendingLocked(~(mask_.load() & ~kUnblockable));
      RecomputeInterruptLocked();
      if (!taken) continue;
      if (IsTracedLocked() && taken->si_signo != SIGKILL) {
        taken = TraceSignalLocked(*taken);
        if (!taken) continue;
      }
      info = *taken;
      const int sig = info.si_signo;
      SignalAction& slot = (*group_->handlers)[sig];
      action = slot;
      if (action.is_ignored()) continue;
      if (action.is_default()) {
        if (group_->unkillable && (SignalBit(sig) & kUnblockable) == 0) continue;
        DefaultAction what = DefaultActionOf(sig);
        if (what == DefaultAction::kIgnore || what == DefaultAction::kContinue) continue;
        if (what == DefaultAction::kStop) {
          // Terminal stops do nothing in an orphaned process group: nobody could continue it (setpgid(2)).
          if (sig != SIGSTOP && kernel_.IsOrphanedLocked(*group_->process_group)) continue;
          group_->stopped = true;
          group_->stop_complete = false;
          group_->stop_signal = sig;
          group_->continue_reportable = false;
          for (Task* t : group_->tasks) {
            // A tracee that was let go on in an earlier one stops again.
            if (t->stop_taken_) {
              t->stop_taken_ = false;
              group_->stopped_tasks--;
            }
            t->InterruptLocked();
          }
          continue;
        }
        LOG_DEBUG("task {}: killed by signal {} at rip {:#x}", tid(), sig, regs().rip);
        kernel_.KillGroupLocked(*group_, sig);
        continue;
      }
      if ((action.flags & SA_RESETHAND) != 0) slot = SignalAction{};
    }
    DeliverHandler(info, action);
  }
  if (exiting_) return;
  // No handler ran: interrupted calls go on as if nothing had happened.
  if (restart_pending_) {
    restart_pending_ = false;
    regs().rax = restart_ == kErestartRestartblock ? SYS_restart_syscall : syscall_number_;
    regs().rip -= 2;  // both `syscall` and `int 0x80` are two bytes
  }
  if (saved_mask_) {
    SignalSet mask = *saved_mask_;
    saved_mask_.reset();
    SetSignalMask(mask);
    if (interrupt_.load(std::memory_order_acquire) != 0) ReturnToUser();
  }
}

void Task::DeliverHandler(const siginfo_t& info, const SignalAction& action) {
  if (restart_pending_) {
    restart_pending_ = false;
    bool restarts = restart_ == kErestartnointr || (restart_ == kErestartsys && (action.flags & SA_RESTART) != 0);
    if (restarts) {
      regs().rax = syscall_number_;
      regs().rip -= 2;
    } else {
      regs().rax = Errno(EINTR).AsReturnValue();
      restart = nullptr;  // over for good
    }
  }
  SignalSet frame_mask = saved_mask_.value_or(mask_.load());
  saved_mask_.reset();
  const uint8_t work = trace_work_.load(std::memory_order_relaxed);
  // The frame is of the program's own flags; the first instruction of the handler is where the step ends.
  const bool stepping = (work & kTraceStep) != 0;
  const bool flagged = (work & (kTraceStep | kTraceWatch)) != 0 && TakeTrapFlag();
  Result<> pushed = [&]() -> Result<> {
    platform::FpState fp = TRY(context_->PullFpState());
    arch::SignalFrameArgs args;
    args.info = info;
    args.action = action;
    args.mask = frame_mask;
    args.stack = signal_stack_;
    args.trapno = fault_trapno_;
    args.error_code = fault_error_code_;
    args.fault_address = fault_address_;
    TRY(arch::PushSignalFrame(regs(), fp, *mm_, args));
    // A handler starts with the initial extended state (the frame holds the interrupted one).
    return context_->PushFpState(platform::InitialFpState());
  }();
  if (!pushed) {
    // No room for a frame: SIGSEGV, fatal if that is what could not be delivered.
    LOG_DEBUG("task {}: no signal frame for {}: {}", tid(), info.si_signo, pushed.error().name());
    if (info.si_signo == SIGSEGV) {
      sync::MutexLock lock(kernel_.mu);
      (*group_->handlers)[SIGSEGV] = SignalAction{};
    }
    mask_.store(frame_mask);
    ForceSignal(MakeSigInfo(SIGSEGV, SI_KERNEL));
    return;
  }
  if ((signal_stack_.flags & kAutodisarm) != 0) signal_stack_ = SignalStack{};
  SignalSet mask = mask_.load() | action.mask;
  if ((action.flags & SA_NODEFER) == 0) mask |= SignalBit(info.si_signo);
  SetSignalMask(mask);
  if (flagged) SetTrapFlag();
  if (stepping) {
    siginfo_t trap = MakeKillInfo(SIGTRAP, SIGTRAP, pid_->number(), creds_->ruid);
    sync::MutexLock lock(kernel_.mu);
    (void)TraceStopLocked(TraceStop::kEvent, SIGTRAP, CLD_TRAPPED, &trap, 0);
  }
}

Result<> Task::SigReturn() {
  regs_replaced_ = true;
  Result<arch::SigreturnState> state = arch::PopSignalFrame(regs(), *mm_);
  if (!state) {
    ForceSignal(MakeSigInfo(SIGSEGV, SI_KERNEL));
    return {};
  }
  regs() = state->regs;
  regs().orig_rax = ~uint64_t{0};
  signal_stack_.flags = state->stack.flags;
  signal_stack_.address = state->stack.address;
  signal_stack_.size = state->stack.size;
  TRY(context_->PushFpState(state->fp));
  SetSignalMask(state->mask);
  return {};
}

}  // namespace redoubt::kernel
