// ptrace(2) on the side of who is traced: where a task stops for its tracer.
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "pkg/log/log.h"
#include "pkg/platform/registers_amd64.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::kernel {
void Kernel::NotifyTracerLocked(Task& tracee, int why, int status) {
  ThreadGroup& group = *tracee.trace_->tracer->group_;
  const SignalAction& action = (*group.handlers)[SIGCHLD];
  const bool stop = why == CLD_STOPPED || why == CLD_TRAPPED;
  if (!stop || (!action.is_ignored() && (action.flags & SA_NOCLDSTOP) == 0)) {
    siginfo_t info = MakeSigInfo(SIGCHLD, why);
    info.si_pid = tracee.pid_->In(group.pid->ns());
    if (tracee.creds_) info.si_uid = tracee.creds_->ruid;
    info.si_status = status;
    (void)SendLocked(group, nullptr, info);
  }
  group.child_events.Notify(waiter::kIn);
}

// Kernel::mu is held on entry and exit, but not while parked.
int Task::TraceStopLocked(TraceStop kind, int code, int why, const siginfo_t* info,
                          uint64_t message) NO_THREAD_SAFETY_ANALYSIS {
  // What a signal becomes if nobody says otherwise, be it that the tracer dies.
  const int unchanged = kind == TraceStop::kSignal ? code : 0;
  if (!IsTracedLocked()) return unchanged;
  kernel_.mu.Unlock();
  (void)regs();
  // Before the stop, not when asked for: only the task's own fiber may.
  Result<platform::FpState> fp = context_->PullFpState();
  kernel_.mu.Lock();
  if (!IsTracedLocked()) return unchanged;
  // At its end a task stops, but not after SIGKILL: ptrace(2) leaves that open, and nobody is to hold up a kill.
  auto must_end = [&] {
    if (kind == TraceStop::kExit) return trace_->killed;
    return group_->exiting || (group_->execing != nullptr && group_->execing != this);
  };
  if (must_end()) return 0;
  if (trace_->stepping) {
    trace_->stepping = false;
    regs_.eflags &= ~platform::kEflagsTf;
  }
  trace_work_.store(kTraced, std::memory_order_relaxed);
  trace_->fp = fp ? *std::move(fp) : platform::InitialFpState();
  trace_->fp_changed = false;
  trace_->code = code;
  trace_->signal = unchanged;
  trace_->has_info = info != nullptr;
  if (info != nullptr) trace_->info = *info;
  trace_->message = message;
  trace_->reportable = true;
  trace_->listening = false;
  trace_->stopped = true;
  kernel_.NotifyTracerLocked(*this, why, code & 0x7f);
  while (trace_->stopped && !must_end()) {
    kernel_.mu.Unlock();
    FallAsleep();
    fiber::Park();
    WakeUp();
    kernel_.mu.Lock();
  }
  trace_->stopped = trace_->listening = trace_->reportable = false;
  const bool ends = must_end();
  const int signal = ends ? 0 : trace_->signal;
  fp = std::move(trace_->fp);
  const bool changed = trace_->fp_changed;
  // What came meanwhile, and the mask may be another.
  RecomputeInterruptLocked();
  const bool watches = IsTracedLocked() && (trace_->debug[kDebugControl] & 0xff) != 0;
  if (watches) trace_work_.fetch_or(kTraceWatch, std::memory_order_relaxed);
  if ((trace_work_.load(std::memory_order_relaxed) & (kTraceStep | kTraceWatch)) != 0 &&
      (regs_.eflags & platform::kEflagsTf) == 0) {
    trace_->stepping = true;
    regs_.eflags |= platform::kEflagsTf;
  }
  if (watches && !ends) {
    kernel_.mu.Unlock();
    (void)CheckWatchpoints(true);
    kernel_.mu.Lock();
  }
  if (changed && !ends) {
    kernel_.mu.Unlock();
    if (!context_->PushFpState(*fp)) LOG_WARNING("task {}: its tracer's floating-point state was not accepted", tid());
    kernel_.mu.Lock();
  }
  // At the stops of system calls and of a step into a handler it is as if sent.
  if (signal != 0 && kind == TraceStop::kEvent && why == CLD_TRAPPED && code >> 8 == 0) {
    (void)kernel_.SendLocked(*group_, this, MakeSigInfo(signal, SI_KERNEL));
  }
  return signal;
}

bool Task::TracesEvent(int event) const {
  if (trace_work_.load(std::memory_order_relaxed) == 0) return false;
  sync::MutexLock lock(kernel_.mu);
  return IsTracedLocked() && (trace_->options & (1u << event)) != 0;
}

void Task::TraceEvent(int event, uint64_t message) {
  if (!TracesEvent(event)) return;
  const int code = SIGTRAP | event << 8;
  const siginfo_t info = MakeKillInfo(SIGTRAP, code, pid_->number(), creds_ ? creds_->ruid : 0);
  sync::MutexLock lock(kernel_.mu);
  const TraceStop kind = event == PTRACE_EVENT_EXIT ? TraceStop::kExit : TraceStop::kEvent;
  (void)TraceStopLocked(kind, code, CLD_TRAPPED, &info, message);
}

// Kernel::mu is held.
void Task::CountStopLocked() NO_THREAD_SAFETY_ANALYSIS {
  group_->stopped_tasks++;
  if (group_->stop_complete || group_->stopped_tasks != static_cast<int>(group_->tasks.size())) return;
  kernel_.StopCompleteLocked(*group_);
}

void Kernel::StopCompleteLocked(ThreadGroup& group) {
  group.stop_complete = true;
  group.stop_reportable = true;
  // A parent that is the tracer hears of each thread's.
  const Task* leader = group.leader;
  if (leader != nullptr && leader->IsTracedLocked() && leader->trace_->tracer->group_.get() == group.parent) return;
  NotifyParentLocked(group, CLD_STOPPED, group.stop_signal);
}

void Task::TrapStopLocked() {
  trace_->trap_pending = false;
  const bool group_stop = group_->stopped;
  if (group_stop && !stop_taken_) {
    stop_taken_ = true;
    CountStopLocked();
  }
  const int sig = group_stop ? group_->stop_signal : SIGTRAP;
  if (trace_->seized) {
    const int code = sig | PTRACE_EVENT_STOP << 8;
    const siginfo_t info = MakeKillInfo(sig, code, pid_->number(), creds_->ruid);
    (void)TraceStopLocked(TraceStop::kEvent, code, CLD_STOPPED, &info, 0);
  } else if (group_stop) {
    (void)TraceStopLocked(TraceStop::kEvent, sig, CLD_STOPPED, nullptr, 0);
  }
}

// Kernel::mu is held on entry and exit, but not while parked.
std::optional<siginfo_t> Task::TraceSignalLocked(const siginfo_t& taken) NO_THREAD_SAFETY_ANALYSIS {
  const int sig = TraceStopLocked(TraceStop::kSignal, taken.si_signo, CLD_TRAPPED, &taken, 0);
  if (sig == 0) return std::nullopt;
  siginfo_t info = trace_->has_info ? trace_->info : taken;
  if (sig != info.si_signo) {
    // Another than it was told of: from the tracer.
    const Task* tracer = trace_->tracer;
    const uint32_t uid = tracer != nullptr && tracer->creds_ ? tracer->creds_->ruid : 0;
    info = MakeKillInfo(sig, SI_USER, tracer != nullptr ? tracer->group_->pid->In(pid_ns()) : 0, uid);
  }
  if ((mask_.load() & SignalBit(sig) & ~kUnblockable) != 0) {
    (void)pending_.Add(info);
    RecomputeInterruptLocked();
    return std::nullopt;
  }
  if (sig == SIGKILL) {
    kernel_.KillGroupLocked(*group_, SIGKILL);
    return std::nullopt;
  }
  return info;
}

uint64_t Task::TracersTrapFlag() const {
  if (trace_work_.load(std::memory_order_relaxed) == 0) return 0;
  sync::MutexLock lock(kernel_.mu);
  return trace_->stepping ? platform::kEflagsTf : 0;
}

bool Task::TakeTrapFlag() {
  sync::MutexLock lock(kernel_.mu);
  if (!trace_->stepping) return false;
  trace_->stepping = false;
  regs().eflags &= ~platform::kEflagsTf;
  return true;
}

void Task::SetTrapFlag() {
  sync::MutexLock lock(kernel_.mu);
  trace_->stepping = true;
  regs().eflags |= platform::kEflagsTf;
}

bool Task::CheckWatchpoints(bool only_look) {
  std::array<uint64_t, 8> debug;
  std::array<uint64_t, 4> before;
  {
    sync::MutexLock lock(kernel_.mu);
    debug = trace_->debug;
    before = trace_->watched;
  }
  std::array<uint64_t, 4> now = before;
  uint64_t hits = 0;
  for (int n = 0; n < 4; n++) {
    const DebugBreakpoint b = BreakpointOf(debug[kDebugControl], n);
    if (!b.enabled) continue;
    bool hit;
    if (b.executes) {
      hit = regs().rip == debug[n];
    } else {
      now[n] = 0;
      (void)mm_->ForceCopyIn(debug[n], std::as_writable_bytes(std::span(&now[n], 1)).first(b.length));
      hit = now[n] != before[n];
    }
    if (hit) hits |= uint64_t{1} << n;
  }
  sync::MutexLock lock(kernel_.mu);
  trace_->watched = now;
  if (only_look || hits == 0) return false;
  trace_->debug[kDebugStatus] |= hits;
  return true;
}

bool Task::TraceStepGoesOn() {
  {
    sync::MutexLock lock(kernel_.mu);
    if (!trace_ || !trace_->stepping) return false;
    if (!IsTracedLocked()) {
      // Whoever asked for it has gone.
      trace_->stepping = false;
      regs_.eflags &= ~platform::kEflagsTf;
      return true;
    }
  }
  const uint8_t work = trace_work_.load(std::memory_order_relaxed);
  if ((work & kTraceWatch) != 0 && CheckWatchpoints(false)) {
    siginfo_t info = MakeSigInfo(SIGTRAP, TRAP_HWBKPT);
    info.si_addr = reinterpret_cast<void*>(regs_.rip);
    ForceSignal(info);
    return true;
  }
  if ((work & kTraceStep) == 0) return true;
  sync::MutexLock lock(kernel_.mu);
  trace_->debug[kDebugStatus] |= kDebugSingleStep;
  return false;
}

bool Task::TraceSyscallEntry() {
  const uint8_t work = trace_work_.load(std::memory_order_relaxed);
  if ((work & (kTraceSyscall | kTraceEmulate)) == 0) return true;
  (void)regs();
  regs_.rax = Errno(ENOSYS).AsReturnValue();
  {
    sync::MutexLock lock(kernel_.mu);
    if (!IsTracedLocked()) return true;
    const int code = SIGTRAP | ((trace_->options & PTRACE_O_TRACESYSGOOD) != 0 ? 0x80 : 0);
    const siginfo_t info = MakeKillInfo(SIGTRAP, code, pid_->number(), creds_->ruid);
    (void)TraceStopLocked(TraceStop::kEvent, code, CLD_TRAPPED, &info, kMessageSyscallEntry);
    // Killed there: it must not do another thing.
    if (group_->exiting || (group_->execing != nullptr && group_->execing != this)) return false;
  }
  return (work & kTraceEmulate) == 0 && static_cast<int32_t>(regs_.orig_rax) != -1;
}

void Task::TraceSyscallExit() {
  const uint8_t work = trace_work_.load(std::memory_order_relaxed);
  if ((work & kTraceWatch) != 0) {
    // What the kernel writes is not what a watchpoint looks for.
    (void)CheckWatchpoints(true);
    // rt_sigreturn(2) has brought the program's own flags.
    if ((regs().eflags & platform::kEflagsTf) == 0) SetTrapFlag();
  }
  // PTRACE_SINGLESTEP over the instruction ends behind it, with a signal.
  if ((work & kTraceStep) != 0 && (work & kTraceEmulate) == 0) {
    siginfo_t info = MakeSigInfo(SIGTRAP, TRAP_BRKPT);
    info.si_addr = reinterpret_cast<void*>(regs().rip);
    ForceSignal(info);
    return;
  }
  if ((work & kTraceSyscall) == 0) return;
  (void)regs();
  sync::MutexLock lock(kernel_.mu);
  if (!IsTracedLocked()) return;
  const int code = SIGTRAP | ((trace_->options & PTRACE_O_TRACESYSGOOD) != 0 ? 0x80 : 0);
  const siginfo_t info = MakeKillInfo(SIGTRAP, code, pid_->number(), creds_->ruid);
  (void)TraceStopLocked(TraceStop::kEvent, code, CLD_TRAPPED, &info, kMessageSyscallExit);
}

}  // namespace redoubt::kernel
