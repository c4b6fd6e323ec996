// Places in the tree: Dentry, Mount and the pair of both. Linux's struct dentry, vfsmount and path.
#ifndef REDOUBT_PKG_SENTRY_VFS_PATH_H_
#define REDOUBT_PKG_SENTRY_VFS_PATH_H_

#include "pkg/refs/refs.h"

namespace redoubt::vfs {

class Dentry;
class Inode;
class Mount;
class MountNamespace;

// Where a walk starts or ends. Both null or neither.
struct Path {
  RefPtr<Mount> mount;
  RefPtr<Dentry> dentry;

  Path();
  Path(RefPtr<Mount> m, RefPtr<Dentry> d);
  Path(const Path&);
  Path(Path&&) noexcept;
  Path& operator=(const Path&);
  Path& operator=(Path&&) noexcept;
  ~Path();

  explicit operator bool() const { return static_cast<bool>(dentry); }
  Inode& inode() const;  // the dentry's
  friend bool operator==(const Path&, const Path&) = default;
};

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_PATH_H_
