// What file systems' special nodes need from layers above them: set once, by the composition root, before the first
// open.
#ifndef REDOUBT_PKG_SENTRY_VFS_SPECIAL_NODES_H_
#define REDOUBT_PKG_SENTRY_VFS_SPECIAL_NODES_H_

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::vfs {

struct SpecialNodeHooks {
  // open(2) of a FIFO; may block interruptibly until the other side comes (fifo(7)). `inode.fifo_slot()` is where the
  // pipe lives, guarded by the implementer's own lock. Null: ENXIO.
  Result<RefPtr<FileDescription>> (*open_fifo)(Inode& inode, const Path& path, int flags) = nullptr;
  // Who runs on this fiber: for rules that Linux takes from `current`, as a write that clears set-ID bits. Valid until
  // the fiber next parks or changes its credentials. Null hook or result: the kernel itself, with every capability.
  const auth::Credentials* (*current_credentials)() = nullptr;
};
void SetSpecialNodeHooks(const SpecialNodeHooks& hooks);

// The current task's; null for the kernel itself.
const auth::Credentials* CurrentCredentials();
// Whether the current task has `capability`.
bool CurrentIsCapable(int capability);

// What Inode::Open of a node of `type` (S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK) does: the hooks above, the device registry
// (device.h).
Result<RefPtr<FileDescription>> OpenSpecialNode(Inode& inode, const Path& path, uint64_t rdev, int flags);

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_SPECIAL_NODES_H_
