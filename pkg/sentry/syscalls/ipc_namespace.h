// The objects of System V IPC and POSIX message queues, and what the calls of the former share.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_IPC_NAMESPACE_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_IPC_NAMESPACE_H_

#include <sys/ipc.h>

#include <string>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/ipc/ipc.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"

namespace redoubt::syscalls {

// Made at the first use.
RefPtr<ipc::Namespace> IpcNamespace(kernel::Kernel& kernel);
inline RefPtr<ipc::Namespace> IpcNamespace(kernel::Task& task) { return IpcNamespace(task.kernel()); }
// Who is to have an object: of IPC_SET. EINVAL for an ID that there is not.
Result<> CheckIpcOwner(kernel::Task& task, const ipc_perm& perm);

// proc::SysvipcTable.
std::string SysvipcTable(RefCounted& reader, std::string_view kind);

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_IPC_NAMESPACE_H_
