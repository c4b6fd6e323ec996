// wait4(2), waitid(2).
#include <sys/wait.h>

#include "pkg/sentry/kernel/kernel.h"

namespace redoubt::kernel {

Result<Kernel::WaitResult> Kernel::Wait(Task& caller, const WaitArgs& args) {
  ThreadGroup& self = caller.group();
  const PidNamespace& ns = caller.pid_ns();
  struct Children {
    waiter::Queue& queue;
    void RegisterWaiter(waiter::Entry& e) { queue.Register(e); }
    void UnregisterWaiter(waiter::Entry& e) { queue.Unregister(e); }
  } children{self.child_events};

  auto is_meant = [&](const ThreadGroup& child, const Pid& pid) {
    switch (args.id_type) {
      case P_PID:
        return pid.In(ns) == args.id;
      case P_PIDFD:
        return child.id == args.id;
      case P_PGID:
        if (args.id == 0) return child.process_group == self.process_group;
        return child.process_group && child.process_group->pid->In(ns) == args.id;
      default:
        return true;
    }
  };
  auto matches = [&](const ThreadGroup& child) {
    // wait(2), __WCLONE, __WALL: children that announce themselves with another signal than SIGCHLD are apart.
    if ((args.options & __WALL) == 0 && ((args.options & __WCLONE) != 0) != (child.exit_signal != SIGCHLD))
      return false;
    return is_meant(child, *child.pid);
  };

  return wait::Retry(children, waiter::kIn, fiber::kForever, [&]() -> Result<WaitResult> {
    sync::MutexLock lock(mu);
    bool any = false;
    // Who is traced is waited for by thread, and by whoever traces it before its parent (ptrace(2)).
    for (Task* tracer : self.tasks) {
      if ((args.options & __WNOTHREAD) != 0 && tracer != &caller) continue;
      for (Task* tracee : tracer->tracees_) {
        if (!is_meant(*tracee->group_, *tracee->pid_)) continue;
        any = true;
        if (std::optional<WaitResult> result = WaitForTraceeLocked(*tracee, ns, args.options)) return *result;
      }
    }
    for (ThreadGroup* child : self.children) {
      if (!matches(*child)) continue;
      if ((args.options & __WNOTHREAD) != 0 && ParentThreadLocked(*child) != &caller) continue;
      any = true;
      if (const Task* leader = child->leader; leader != nullptr && leader->IsTracedLocked()) {
        if (leader->trace_->tracer->group_.get() == &self || child->zombie) continue;
      }
      WaitResult result;
      result.pid = child->pid->In(ns);
      if (child->leader != nullptr && child->leader->creds_) result.uid = child->leader->creds_->ruid;
      if (child->zombie && (args.options & WEXITED) != 0) {
        result.status = child->exit_status;
        result.usage = child->usage;
        result.usage.cpu += child->children_usage.cpu;
        if ((args.options & WNOWAIT) == 0) ReapLocked(*child);
        return result;
      }
      if (child->stop_reportable && (args.options & WSTOPPED) != 0) {
        result.status = (child->stop_signal << 8) | 0x7f;
        if ((args.options & WNOWAIT) == 0) child->stop_reportable = false;
        return result;
      }
      if (child->continue_reportable && (args.options & WCONTINUED) != 0) {
        result.status = 0xffff;
        if ((args.options & WNOWAIT) == 0) child->continue_reportable = false;
        return result;
      }
    }
    if (!any) return Err(ECHILD);
    if ((args.options & WNOHANG) != 0) return WaitResult{};
    return Err(EAGAIN);
  });
}

Task* Kernel::ParentThreadLocked(const ThreadGroup& child) {
  if (child.parent == nullptr || child.parent->tasks.empty()) return nullptr;
  for (Task* t : child.parent->tasks) {
    if (t->tid() == child.forked_by) return t;
  }
  return child.parent->tasks.front();
}

std::optional<Kernel::WaitResult> Kernel::WaitForTraceeLocked(Task& tracee, const PidNamespace& ns, int options) {
  Trace& trace = *tracee.trace_;
  ThreadGroup& group = *tracee.group_;
  WaitResult result;
  result.pid = tracee.pid_->In(ns);
  if (tracee.creds_) result.uid = tracee.creds_->ruid;
  if (trace.reportable) {
    result.status = trace.code << 8 | 0x7f;
    result.traced = true;
    if ((options & WNOWAIT) == 0) trace.reportable = false;
    return result;
  }
  if ((options & WEXITED) == 0) return std::nullopt;
  RefPtr<Task> keep(&tracee);
  if (trace.dead) {
    result.status = tracee.exit_status_;
    result.usage = tracee.GetUsage();
    if ((options & WNOWAIT) == 0) ReleaseTraceeLocked(tracee);
    return result;
  }
  if (group.leader != &tracee || !group.zombie) return std::nullopt;
  result.status = group.exit_status;
  result.usage = group.usage;
  result.usage.cpu += group.children_usage.cpu;
  if ((options & WNOWAIT) == 0) {
    if (trace.tracer->group_.get() == group.parent) {
      ReapLocked(group);
    } else {
      ReleaseTraceeLocked(tracee);
    }
  }
  return result;
}

}  // namespace redoubt::kernel
