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

  auto matches = [&](const ThreadGroup& child) {
    // wait(2), __WCLONE, __WALL: children that announce themselves with another signal than SIGCHLD are apart.
    if ((args.options & __WALL) == 0 && ((args.options & __WCLONE) != 0) != (child.exit_signal != SIGCHLD))
      return false;
    switch (args.id_type) {
      case P_PID:
        return child.pid->In(ns) == args.id;
      case P_PIDFD:
        return child.id == args.id;
      case P_PGID:
        if (args.id == 0) return child.process_group == self.process_group;
        return child.process_group && child.process_group->pid->In(ns) == args.id;
      default:
        return true;
    }
  };

  return wait::Retry(children, waiter::kIn, fiber::kForever, [&]() -> Result<WaitResult> {
    sync::MutexLock lock(mu);
    bool any = false;
    for (ThreadGroup* child : self.children) {
      if (!matches(*child)) continue;
      any = true;
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

}  // namespace redoubt::kernel
