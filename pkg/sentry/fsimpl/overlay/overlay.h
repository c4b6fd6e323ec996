// overlayfs: a writable upper layer over a read-only lower one, seen as one tree.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_OVERLAY_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_OVERLAY_H_

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::overlay {

// The union of both. `upper` is a tmpfs that nobody else uses; `lower` is never changed. The root of the upper layer
// takes on the owner, mode and times of the lower's.
//
// Differences from Linux's overlayfs (Documentation/filesystems/overlayfs.rst): hard links of the lower layer stay one
// file when it is written (as with index=on), directories of the lower layer can be renamed (as with redirect_dir=on),
// and st_ino never changes (as with xino=on). What has been hidden is kept in memory, not as whiteout nodes, so the
// upper file system alone is no copy of it all.
Result<RefPtr<vfs::Filesystem>> Create(RefPtr<vfs::Filesystem> upper, RefPtr<vfs::Filesystem> lower);

}  // namespace redoubt::overlay

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_OVERLAY_H_
