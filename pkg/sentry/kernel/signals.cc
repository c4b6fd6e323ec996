// Sending signals: kill(2), signal(7).
#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/kernel/container.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/limits/system.h"

namespace redoubt::kernel {

void Task::InterruptLocked() {
  interrupt_.fetch_or(kAttention, std::memory_order_seq_cst);
  if (in_guest_.load(std::memory_order_seq_cst) && context_) context_->Interrupt();
  if (fiber_) fiber_->Unpark();
}

void Task::Interrupt() {
  sync::MutexLock lock(kernel_.mu);
  InterruptLocked();
}

bool Task::WantsSignalLocked(int sig) const {
  SignalSet bit = SignalBit(sig);
  return (mask_.load(std::memory_order_relaxed) & bit & ~kUnblockable) == 0 || (sigwait_set_ & bit) != 0;
}

void Task::RecomputeInterruptLocked() {
  SignalSet deliverable =
      (pending_.set() | group_->pending.set()) & ~(mask_.load(std::memory_order_relaxed) & ~kUnblockable);
  bool attention = deliverable != 0 || group_->exiting || (group_->stopped && !stop_taken_) ||
                   (group_->execing != nullptr && group_->execing != this) ||
                   (IsTracedLocked() && trace_->trap_pending);
  interrupt_.store((attention ? kAttention : 0) | (MustFreezeLocked() ? kFreeze : 0), std::memory_order_seq_cst);
}

void Kernel::ContinueLocked(ThreadGroup& group) {
  if (!group.stopped) return;
  group.stopped = false;
  group.stop_reportable = false;
  if (group.stop_complete) {
    group.stop_complete = false;
    group.continue_reportable = true;
    NotifyParentLocked(group, CLD_CONTINUED, SIGCONT);
  }
  for (Task* task : group.tasks) {
    if (task->stop_taken_) {
      task->stop_taken_ = false;
      group.stopped_tasks--;
    }
    if (task->IsTracedLocked() && task->trace_->seized) {
      // ptrace(2), "Group-stop": the tracer hears of the end too.
      task->trace_->trap_pending = true;
      if (task->trace_->listening) task->trace_->stopped = false;
    }
    task->InterruptLocked();
  }
}

Result<> Kernel::SendLocked(ThreadGroup& group, Task* target, const siginfo_t& sent) {
  if (group.zombie || (target != nullptr && target->exited_)) return {};
  siginfo_t info = sent;
  bool from_inside = false;  // of the PID namespace
  // sigaction(2): what kill(2) and its kin send names the sender, by a number that is right where it arrives.
  if (Task* sender = Task::Current();
      sender != nullptr && info.si_code <= 0 && info.si_code != SI_TIMER && info.si_code != SI_SIGIO) {
    const int seen_as = sender->group_->pid->In(group.pid->ns());
    from_inside = seen_as != 0;
    if (!from_inside || info.si_pid == sender->group_->pid->number()) info.si_pid = seen_as;
  }
  const int sig = info.si_signo;
  const SignalSet bit = SignalBit(sig);
  // signal(7): a stop signal takes back a pending SIGCONT and the other way round, whatever is blocked or ignored.
  auto discard = [&](SignalSet set) {
    group.pending.Discard(set);
    for (Task* t : group.tasks) t->pending_.Discard(set);
  };
  if (sig == SIGCONT) {
    discard(kStopSignals);
    ContinueLocked(group);
  } else if ((bit & kStopSignals) != 0) {
    discard(SignalBit(SIGCONT));
  }
  const SignalAction& action = (*group.handlers)[sig];
  bool ignored = action.is_ignored() || (action.is_default() && DefaultActionOf(sig) == DefaultAction::kIgnore) ||
                 (sig == SIGCONT && action.is_default()) ||
                 (group.unkillable && action.is_default() && (from_inside || (bit & kUnblockable) == 0));
  // A tracer sees ignored ones too.
  if (const Task* first = target != nullptr ? target : group.leader;
      first != nullptr && first->IsTracedLocked() && sig != SIGKILL) {
    ignored = false;
  }
  // An ignored signal is kept only while somebody blocks it or waits for it.
  if (ignored) {
    bool kept = target != nullptr ? (target->signal_mask() & bit) != 0 || (target->sigwait_set_ & bit) != 0
                                  : std::all_of(group.tasks.begin(), group.tasks.end(), [&](Task* t) {
                                      return (t->signal_mask() & bit) != 0 || (t->sigwait_set_ & bit) != 0;
                                    });
    if (!kept) return {};
  }
  PendingSignals& queue = target != nullptr ? target->pending_ : group.pending;
  std::optional<uint32_t> owner;
  if (sig >= kFirstRealtimeSignal) {
    // signal(7): kill and the kernel's own are sent whatever is queued, but then, as Linux does, once.
    const Task* receiver = target != nullptr ? target : group.leader;
    const uint32_t uid = receiver != nullptr && receiver->creds_ ? receiver->creds_->ruid : 0;
    if (limits::PendingSignalsOfUsers().Charge(uid, 1, group.limits.Get(RLIMIT_SIGPENDING).soft)) {
      owner = uid;
    } else if (info.si_code != SI_USER && info.si_code != SI_TKILL) {
      return Err(EAGAIN);
    } else if ((queue.set() & bit) != 0) {
      return {};
    }
  }
  (void)queue.Add(info, owner);
  group.signal_queue.Notify(waiter::kIn);
  if (sig == SIGKILL) {
    KillGroupLocked(group, SIGKILL);
    return {};
  }
  // Wake one who wants it: the target, else the main thread, else any.
  Task* chosen = nullptr;
  if (target != nullptr) {
    if (target->WantsSignalLocked(sig)) chosen = target;
  } else {
    for (Task* t : group.tasks) {
      if (!t->WantsSignalLocked(sig)) continue;
      if (chosen == nullptr || t == group.leader) chosen = t;
    }
  }
  if (chosen != nullptr) chosen->InterruptLocked();
  return {};
}

Result<> Kernel::SendToGroup(ThreadGroup& group, const siginfo_t& info) {
  sync::MutexLock lock(mu);
  return SendLocked(group, nullptr, info);
}

Result<> Kernel::SendToTask(Task& task, const siginfo_t& info) {
  sync::MutexLock lock(mu);
  return SendLocked(task.group(), &task, info);
}

Result<> Kernel::SendToProcessGroup(int pgid, const siginfo_t& info) {
  sync::MutexLock lock(mu);
  RefPtr<ProcessGroup> pg = FindProcessGroupLocked(pgid);
  if (!pg) return Err(ESRCH);
  std::vector<ThreadGroup*> members = pg->members;
  for (ThreadGroup* member : members) TRY(SendLocked(*member, nullptr, info));
  return {};
}

bool MaySignal(const Task& caller, const ThreadGroup& target, const auth::Credentials& target_creds, int sig) {
  const auth::Credentials& c = caller.creds();
  if (&caller.group() == &target || c.HasCapability(CAP_KILL)) return true;
  if (c.euid == target_creds.suid || c.euid == target_creds.ruid || c.ruid == target_creds.suid ||
      c.ruid == target_creds.ruid) {
    return true;
  }
  return sig == SIGCONT && caller.group().process_group && target.process_group &&
         caller.group().process_group->session == target.process_group->session;
}

Result<> Kernel::KillLocked(Task& caller, ThreadGroup& group, int sig) {
  const auth::Credentials& creds = *group.leader->creds_;
  if (!MaySignal(caller, group, creds, sig)) return Err(EPERM);
  if (sig == 0) return {};
  return SendLocked(group, nullptr, MakeKillInfo(sig, SI_USER, caller.group().pid->number(), caller.creds().ruid));
}

// kill(2): all but the first process and the caller's own. Containers in the outermost namespace do not reach each
// other.
bool Kernel::IsReachedByKillAllLocked(const Task& caller, const ThreadGroup& group) {
  const PidNamespace& ns = caller.pid_ns();
  if (&group == &caller.group()) return false;
  if (ns.level() > 0) return group.pid->In(ns) > 1;
  return group.container == caller.group().container && &group != group.container->init.get();
}

Result<> Kernel::Kill(Task& caller, ThreadGroup& group, int sig) {
  if (sig < 0 || sig > kMaxSignal) return Err(EINVAL);
  sync::MutexLock lock(mu);
  if (group.reaped) return Err(ESRCH);
  return KillLocked(caller, group, sig);
}

Result<> Kernel::Kill(Task& caller, int pid, int sig) {
  if (sig < 0 || sig > kMaxSignal) return Err(EINVAL);
  if (pid == INT32_MIN) return Err(ESRCH);
  const PidNamespace& ns = caller.pid_ns();
  sync::MutexLock lock(mu);
  if (pid > 0) {
    auto it = tasks_.find(ns.ToRoot(pid));
    if (it == tasks_.end()) return Err(ESRCH);
    RefPtr<ThreadGroup> group = it->second->group_;
    return KillLocked(caller, *group, sig);
  }
  std::vector<RefPtr<ThreadGroup>> targets;
  if (pid == -1) {
    for (auto& [tid, task] : tasks_) {
      ThreadGroup* g = task->group_.get();
      if (g->leader == task.get() && IsReachedByKillAllLocked(caller, *g)) targets.emplace_back(g);
    }
  } else {
    RefPtr<ProcessGroup> pg = pid == 0 ? caller.group().process_group : FindProcessGroupLocked(ns.ToRoot(-pid));
    if (!pg) return Err(ESRCH);
    for (ThreadGroup* g : pg->members) targets.emplace_back(g);
  }
  if (targets.empty()) return Err(ESRCH);
  // Success if one could be signalled (kill(2)).
  Result<> outcome = Err(EPERM);
  for (auto& group : targets) {
    if (Result<> r = KillLocked(caller, *group, sig); r) outcome = r;
  }
  return outcome;
}

void Kernel::NotifyParentLocked(ThreadGroup& group, int code, int status) {
  ThreadGroup* parent = group.parent;
  if (parent == nullptr) return;
  bool stop_or_continue = code == CLD_STOPPED || code == CLD_CONTINUED;
  int sig = stop_or_continue ? SIGCHLD : group.exit_signal;
  if (sig != 0 && !(stop_or_continue && ((*parent->handlers)[SIGCHLD].flags & SA_NOCLDSTOP) != 0)) {
    siginfo_t info = MakeSigInfo(sig, code);
    info.si_pid = group.pid->In(parent->pid->ns());
    if (group.leader != nullptr && group.leader->creds_) info.si_uid = group.leader->creds_->ruid;
    info.si_status = status;
    info.si_utime = static_cast<clock_t>(group.usage.cpu.user / 10'000'000);
    info.si_stime = static_cast<clock_t>(group.usage.cpu.system / 10'000'000);
    (void)SendLocked(*parent, nullptr, info);
  }
  parent->child_events.Notify(waiter::kIn);
}

}  // namespace redoubt::kernel
