// proc(5).
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_PROC_PROC_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_PROC_PROC_H_

#include "pkg/refs/refs.h"
#include "pkg/sentry/fsimpl/proc/kernel_view.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::proc {

// `view` is borrowed and must outlive the file system.
RefPtr<vfs::Filesystem> Create(KernelView& view);

}  // namespace redoubt::proc

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_PROC_PROC_H_
