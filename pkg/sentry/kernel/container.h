// The processes of one container.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_CONTAINER_H_
#define REDOUBT_PKG_SENTRY_KERNEL_CONTAINER_H_

#include <string>
#include <utility>

#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/thread_group.h"

namespace redoubt::kernel {

// What Linux makes of a PID namespace and of a control group, as far as they are about who belongs together: orphans go
// to its first process and all end with it (pid_namespaces(7)), all can be frozen, signalled and accounted for
// together. Its processes have no numbers of their own: containers of a sandbox share one PID namespace.
//
// Given to Kernel::CreateProcess; children inherit it. Held by its processes and by who made it. The fields are guarded
// by Kernel::mu, which they cannot name here.
class Container final : public RefCounted {
 public:
  explicit Container(std::string id) : id(std::move(id)) {}
  const std::string id;

  RefPtr<ThreadGroup> init;  // null before the first process is there, and once that has ended
  bool ended = false;        // the first process has ended: there will be no other
  bool frozen = false;
  CpuTimes ended_cpu;  // of tasks that have ended
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_CONTAINER_H_
