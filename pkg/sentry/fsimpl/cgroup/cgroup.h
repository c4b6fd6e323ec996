// cgroup2 as a view: what the container's limits are, in the files in which programs look for them.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_CGROUP_CGROUP_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_CGROUP_CGROUP_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::cgroup {

struct Limits {
  std::optional<uint64_t> memory;      // bytes
  std::optional<uint64_t> cpu_quota;   // µs in a period
  std::optional<uint64_t> cpu_period;  // µs
  std::optional<uint64_t> pids;
};

// What is used now. Called whenever a file is read.
struct Usage {
  std::function<uint64_t()> memory;  // bytes
  std::function<uint64_t()> cpu_user_ns, cpu_system_ns;
  std::function<uint64_t()> pids;
};

// One control group, the root of the container's view (Documentation/admin-guide/cgroup-v2.rst). Read-only: what bounds
// the sandbox is a control group of the host, which nobody inside can change. Groups cannot be made, and there is no
// cgroup.procs: every process of the container is in this one, as /proc/PID/cgroup says.
RefPtr<vfs::Filesystem> Create(const Limits& limits, Usage usage);

}  // namespace redoubt::cgroup

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_CGROUP_CGROUP_H_
