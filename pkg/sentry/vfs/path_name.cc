#include <vector>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/mount.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::vfs {

NamedPath PathName(const Path& root, const Path& path) {
  NamedPath result;
  if (!path) {
    result.deleted = true;
    return result;
  }
  if (path.dentry->kind() == DentryKind::kAnonymous) {
    result.name = path.dentry->name();
    return result;
  }
  std::string reversed;  // whole components, last first, each written backwards
  {
    sync::MutexLock mounts(Mount::Tree());
    sync::MutexLock dentries(Dentry::TreeLock());
    const Mount* mount = path.mount.get();
    const Dentry* dentry = path.dentry.get();
    while (!(root && mount == root.mount.get() && dentry == root.dentry.get())) {
      if (dentry == mount->root().get()) {
        if (!mount->ParentLocked()) {
          result.reachable = !root;
          break;
        }
        dentry = mount->MountPointLocked().get();
        mount = mount->ParentLocked().get();
        continue;
      }
      if (!dentry->ParentLocked()) {
        result.reachable = false;
        break;
      }
      const std::string& name = dentry->NameLocked();
      reversed.append(name.rbegin(), name.rend());
      reversed += '/';
      dentry = dentry->ParentLocked().get();
    }
  }
  if (reversed.empty()) reversed = "/";
  result.name.assign(reversed.rbegin(), reversed.rend());
  if (!result.reachable) result.name.insert(0, "(unreachable)");
  if (path.dentry->deleted()) {
    result.deleted = true;
    result.name += " (deleted)";
  }
  return result;
}

}  // namespace redoubt::vfs
