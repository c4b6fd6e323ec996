// Sessions and process groups: credentials(7), setsid(2), setpgid(2). Guarded by Kernel::mu.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_SESSION_H_
#define REDOUBT_PKG_SENTRY_KERNEL_SESSION_H_

#include <vector>

#include "pkg/refs/refs.h"

namespace redoubt::kernel {

class ThreadGroup;

// Alive while a process is in it.
class Session final : public RefCounted {
 public:
  explicit Session(int id) : id(id) {}
  const int id;
  // The leader has acquired a controlling terminal: an opaque reference to the tty, whose own lock guards its state.
  RefPtr<RefCounted> controlling_tty;
};

class ProcessGroup final : public RefCounted {
 public:
  ProcessGroup(int id, RefPtr<Session> session) : id(id), session(std::move(session)) {}
  const int id;
  const RefPtr<Session> session;
  std::vector<ThreadGroup*> members;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_SESSION_H_
