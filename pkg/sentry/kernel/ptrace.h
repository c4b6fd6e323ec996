// Who may look into a process.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_PTRACE_H_
#define REDOUBT_PKG_SENTRY_KERNEL_PTRACE_H_

#include "pkg/errors/errors.h"

namespace redoubt::kernel {

class Task;

enum class AccessBy { kFilesystemIds, kRealIds };  // PTRACE_MODE_FSCREDS, PTRACE_MODE_REALCREDS

// ptrace(2), "Ptrace access mode checking", of the caller to another task. EPERM; ESRCH: the target has ended.
Result<> CheckPtraceAccess(const Task& caller, const Task& target, AccessBy by);

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_PTRACE_H_
