// proc(5).
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_PROC_PROC_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_PROC_PROC_H_

#include <memory>

#include "pkg/refs/refs.h"
#include "pkg/sentry/fsimpl/proc/kernel_view.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::proc {

// A mount shows the processes of one PID namespace, the view's (pid_namespaces(7), "/proc and PID namespaces").
RefPtr<vfs::Filesystem> Create(std::shared_ptr<KernelView> view);

// Lines of /proc/sysvipc/KIND ("msg", "sem", "shm") after the heading, as `reader`, a task of KernelView's, sees them.
// Given by who has the objects, once there may be some.
using SysvipcTable = std::string (*)(RefCounted& reader, std::string_view kind);
void SetSysvipcTable(SysvipcTable table);

}  // namespace redoubt::proc

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_PROC_PROC_H_
