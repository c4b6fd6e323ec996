// Signals for I/O: O_ASYNC, F_SETOWN, F_SETSIG and their kin of fcntl(2), FIOASYNC and SIOCSPGRP of ioctl(2), SIGURG.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_SIGIO_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_SIGIO_H_

#include <fcntl.h>

#include "pkg/errors/errors.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::syscalls {

// Whom a description's SIGIO and SIGURG are for: F_OWNER_TID, F_OWNER_PID or F_OWNER_PGRP, and the number; 0: nobody.
// ESRCH: there is none; EINVAL, too, for files that cannot be waited for (Linux remembers it for them, to no effect).
// `fd` is the descriptor of the call, here and below, as which si_fd names the file.
Result<> SetSigioOwner(kernel::Task& task, int fd, vfs::FileDescription& file, const f_owner_ex& owner);
f_owner_ex GetSigioOwner(kernel::Task& task, const vfs::FileDescription& file);
// F_SETSIG: which signal, with what happened and where in its siginfo; 0: SIGIO without that. EINVAL.
Result<> SetSigioSignal(kernel::Task& task, int fd, vfs::FileDescription& file, uint64_t signal);
int GetSigioSignal(kernel::Task& task, const vfs::FileDescription& file);
// O_ASYNC has been set or taken off. The signal comes when something changes, not for what holds already. Files that
// cannot be waited for never send one.
Result<> SetSigio(kernel::Task& task, int fd, vfs::FileDescription& file, bool on);

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_SIGIO_H_
