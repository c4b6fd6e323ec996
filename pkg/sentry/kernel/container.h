// The processes of one container.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_CONTAINER_H_
#define REDOUBT_PKG_SENTRY_KERNEL_CONTAINER_H_

#include <cstdint>
#include <string>
#include <utility>

#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/user_namespace.h"
#include "pkg/sentry/kernel/pid_namespace.h"
#include "pkg/sentry/kernel/thread_group.h"

namespace redoubt::kernel {

// What Linux makes of a control group, as far as it is about who belongs together: all can be frozen, signalled and
// accounted for together, and end with the first. Numbers are the PID namespace's: the container's own, another's, or
// the outermost, which is nobody's. Orphans go to the first process of that namespace, and in the outermost to the
// container's.
//
// Given to Kernel::CreateProcess; children inherit it. Held by its processes and by who made it. The fields are guarded
// by Kernel::mu, which they cannot name here.
class Container final : public RefCounted {
 public:
  // `pid_ns` null: the outermost. `user_ns` null: the first, in which all IDs exist.
  explicit Container(std::string id, RefPtr<PidNamespace> pid_ns = nullptr,
                     RefPtr<const auth::UserNamespace> user_ns = nullptr)
      : id(std::move(id)), pid_ns(std::move(pid_ns)), user_ns(std::move(user_ns)) {}
  const std::string id;
  const RefPtr<PidNamespace> pid_ns;
  const RefPtr<const auth::UserNamespace> user_ns;

  // Whether there is such an ID; -1 is none.
  bool HasUid(uint32_t uid) const { return uid != ~uint32_t{0} && (!user_ns || user_ns->HasUid(uid)); }
  bool HasGid(uint32_t gid) const { return gid != ~uint32_t{0} && (!user_ns || user_ns->HasGid(gid)); }

  RefPtr<ThreadGroup> init;  // null before the first process is there, and once that has ended
  bool ended = false;        // the first process has ended: there will be no other
  bool frozen = false;
  CpuTimes ended_cpu;  // of tasks that have ended
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_CONTAINER_H_
