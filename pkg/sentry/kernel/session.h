// Sessions and process groups: credentials(7), setsid(2), setpgid(2). Guarded by Kernel::mu.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_SESSION_H_
#define REDOUBT_PKG_SENTRY_KERNEL_SESSION_H_

#include <utility>
#include <vector>

#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/pid_namespace.h"

namespace redoubt::kernel {

class ThreadGroup;

// Alive while a process is in it.
class Session final : public RefCounted {
 public:
  explicit Session(RefPtr<Pid> pid) : pid(std::move(pid)), id(this->pid->root_number()) {}
  const RefPtr<Pid> pid;
  const int id;  // in the outermost PID namespace
  // The leader has acquired a controlling terminal: an opaque reference to the tty, whose own lock guards its state.
  RefPtr<RefCounted> controlling_tty;
};

class ProcessGroup final : public RefCounted {
 public:
  ProcessGroup(RefPtr<Pid> pid, RefPtr<Session> session)
      : pid(std::move(pid)), id(this->pid->root_number()), session(std::move(session)) {}
  const RefPtr<Pid> pid;
  const int id;  // as above
  const RefPtr<Session> session;
  std::vector<ThreadGroup*> members;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_SESSION_H_
