#include "pkg/sentry/vfs/path.h"

#include <utility>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/mount.h"

namespace redoubt::vfs {

Path::Path() = default;
Path::Path(RefPtr<Mount> m, RefPtr<Dentry> d) : mount(std::move(m)), dentry(std::move(d)) {}
Path::Path(const Path&) = default;
Path::Path(Path&&) noexcept = default;
// The dentry goes before the mount that keeps its file system mounted.
Path::~Path() { dentry.reset(); }

Path& Path::operator=(const Path& o) {
  Path copy(o);
  std::swap(mount, copy.mount);
  std::swap(dentry, copy.dentry);
  return *this;
}

Path& Path::operator=(Path&& o) noexcept {
  Path taken(std::move(o));
  std::swap(mount, taken.mount);
  std::swap(dentry, taken.dentry);
  return *this;
}

Inode& Path::inode() const { return dentry->inode(); }

}  // namespace redoubt::vfs
