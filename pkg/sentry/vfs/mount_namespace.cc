#include <linux/fs.h>
#include <sys/mount.h>
#include <unistd.h>

#include <map>
#include <utility>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/mount.h"
#include "pkg/sentry/vfs/path_walk.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::vfs {

namespace {

using Detached = std::vector<Mount::Detached>;

// Takes `mount` and all below it out of the tree, deepest first. The result is dropped without the lock.
void DetachTreeLocked(Mount& mount, Detached& out) {
  std::vector<Mount*> order{&mount};
  for (size_t i = 0; i < order.size(); i++) {
    for (Mount* child : order[i]->ChildrenLocked()) order.push_back(child);
  }
  for (size_t i = order.size(); i-- > 0;) {
    if (order[i]->ParentLocked()) out.push_back(order[i]->DetachLocked());
  }
}

// The mount flags that remounting a bind mount sets.
constexpr uint64_t kPerMountFlags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME |
                                    MS_RELATIME | MS_STRICTATIME | 256 /* MS_NOSYMFOLLOW */;

Result<> CheckCapable(const Walker& walker) {
  if (!walker.creds.HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  return {};
}

bool IsMountRoot(const Path& path) { return path.dentry == path.mount->root(); }

// Copies of the mounts below `from` are attached below `to`, a clone of `from` that starts at its own root.
void CopyChildrenLocked(const Mount& from, Mount& to, std::map<const Mount*, RefPtr<Mount>>& copies) {
  // Clones are made by those who hold no lock; here they only find their places.
  for (Mount* child : from.ChildrenLocked()) {
    auto it = copies.find(child);
    if (it == copies.end()) continue;
    to.AttachLocked(it->second, child->MountPointLocked());
    CopyChildrenLocked(*child, *it->second, copies);
  }
}

}  // namespace

MountNamespace::MountNamespace(RefPtr<Mount> root) : root_(std::move(root)) {}
MountNamespace::~MountNamespace() { UnmountAll(); }

RefPtr<MountNamespace> MountNamespace::Create(RefPtr<Filesystem> root, uint64_t ms_flags, std::string source) {
  return RefPtr<MountNamespace>(
      new MountNamespace(Mount::Create(std::move(root), ms_flags & kPerMountFlags, std::move(source))));
}

Result<RefPtr<MountNamespace>> MountNamespace::Copy(std::vector<Path*> translate) {
  // Mounts are made without the lock, so what is mounted meanwhile is not copied, as if it had come later.
  std::vector<RefPtr<Mount>> all;
  {
    sync::MutexLock lock(Mount::Tree());
    if (root_) all.push_back(root_);
    for (size_t i = 0; i < all.size(); i++) {
      for (Mount* child : all[i]->ChildrenLocked()) all.push_back(RefPtr<Mount>(child));
    }
  }
  CHECK(!all.empty(), "a copy of a mount namespace that has ended");
  TRY(Mount::CheckRoom(all.size()));
  std::map<const Mount*, RefPtr<Mount>> copies;
  for (const RefPtr<Mount>& m : all) copies[m.get()] = m->Clone(m->root());
  RefPtr<Mount> root = copies[all[0].get()];
  {
    sync::MutexLock lock(Mount::Tree());
    CopyChildrenLocked(*all[0], *root, copies);
  }
  for (Path* path : translate) {
    if (!*path) continue;
    auto it = copies.find(path->mount.get());
    if (it != copies.end()) *path = Path(it->second, path->dentry);
  }
  return RefPtr<MountNamespace>(new MountNamespace(std::move(root)));
}

Path MountNamespace::root() {
  Path path;
  {
    sync::MutexLock lock(Mount::Tree());
    if (!root_) return path;
    path = Path(root_, root_->root());
    FollowMountsLocked(path);
  }
  return path;
}

void MountNamespace::AddUser() { users_.fetch_add(1, std::memory_order_relaxed); }

void MountNamespace::DropUser() {
  if (users_.fetch_sub(1, std::memory_order_acq_rel) == 1) UnmountAll();
}

void MountNamespace::UnmountAll() {
  Detached detached;
  RefPtr<Mount> root;
  {
    sync::MutexLock lock(Mount::Tree());
    root = std::move(root_);
    if (root) DetachTreeLocked(*root, detached);
  }
}

Result<Path> MountNamespace::LookupMountPoint(const Walker& walker, const At& target) {
  TRY(CheckCapable(walker));
  return Lookup(walker, target);
}

Result<> MountNamespace::Attach(RefPtr<Mount> mount, Path at) {
  if (mount->root()->inode().IsDirectory() != at.inode().IsDirectory()) return Err(ENOTDIR);
  // Dropped without the lock.
  Path where;
  {
    sync::MutexLock lock(Mount::Tree());
    where = at;
    FollowMountsLocked(where);
    if (where.dentry->deleted()) return Err(ENOENT);
    where.mount->AttachLocked(std::move(mount), where.dentry);
  }
  return {};
}

Result<> MountNamespace::MountAt(const Walker& walker, const At& target, RefPtr<Filesystem> fs, uint64_t ms_flags,
                                 std::string source) {
  Path at = TRY(LookupMountPoint(walker, target));
  TRY(Mount::CheckRoom(1));
  return Attach(Mount::Create(std::move(fs), ms_flags & kPerMountFlags, std::move(source)), std::move(at));
}

Result<> MountNamespace::BindAt(const Walker& walker, const At& source, const At& target, bool recursive) {
  Path to = TRY(LookupMountPoint(walker, target));
  Path from = TRY(Lookup(walker, source));
  if (from.dentry->kind() == DentryKind::kAnonymous || from.dentry->deleted()) return Err(EINVAL);
  TRY(Mount::CheckRoom(1));
  RefPtr<Mount> top = from.mount->Clone(from.dentry);
  std::map<const Mount*, RefPtr<Mount>> copies;
  if (recursive) {
    std::vector<RefPtr<Mount>> all;
    {
      sync::MutexLock lock(Mount::Tree());
      all.push_back(from.mount);
      for (size_t i = 0; i < all.size(); i++) {
        for (Mount* child : all[i]->ChildrenLocked()) {
          if (i == 0 && !from.dentry->IsAncestorOf(*child->MountPointLocked())) continue;
          all.push_back(RefPtr<Mount>(child));
        }
      }
    }
    TRY(Mount::CheckRoom(all.size() - 1));
    for (size_t i = 1; i < all.size(); i++) copies[all[i].get()] = all[i]->Clone(all[i]->root());
    sync::MutexLock lock(Mount::Tree());
    CopyChildrenLocked(*all[0], *top, copies);
  }
  Result<> attached = Attach(top, std::move(to));
  if (!attached) {
    Detached detached;
    sync::MutexLock lock(Mount::Tree());
    DetachTreeLocked(*top, detached);
  }
  return attached;
}

Result<> MountNamespace::RemountAt(const Walker& walker, const At& target, uint64_t ms_flags) {
  Path at = TRY(LookupMountPoint(walker, target));
  if (!IsMountRoot(at)) return Err(EINVAL);
  uint64_t flags = ms_flags & kPerMountFlags;
  // Access-time flags stay as they are unless one is given (mount(2), MS_REMOUNT).
  constexpr uint64_t kAtime = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
  if ((flags & kAtime) == 0) flags |= at.mount->flags() & kAtime;
  if ((flags & MS_RDONLY) != 0 && (at.mount->flags() & MS_RDONLY) == 0 && at.mount->HasWriters()) return Err(EBUSY);
  at.mount->set_flags(flags);
  return {};
}

Result<> MountNamespace::MoveAt(const Walker& walker, const At& source, const At& target) {
  Path to = TRY(LookupMountPoint(walker, target));
  Path from = TRY(Lookup(walker, source));
  if (!IsMountRoot(from)) return Err(EINVAL);
  if (from.inode().IsDirectory() != to.inode().IsDirectory()) return Err(ENOTDIR);
  Mount::Detached detached;
  Path where;
  sync::MutexLock lock(Mount::Tree());
  if (!from.mount->ParentLocked()) return Err(EINVAL);
  if (from.mount->IsAncestorOfLocked(*to.mount)) return Err(ELOOP);
  where = to;
  FollowMountsLocked(where);
  if (where.dentry->deleted()) return Err(ENOENT);
  detached = from.mount->DetachLocked();
  where.mount->AttachLocked(from.mount, where.dentry);
  return {};
}

Result<> MountNamespace::UmountAt(const Walker& walker, const At& target, int flags) {
  if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)) return Err(EINVAL);
  if ((flags & MNT_EXPIRE) && (flags & (MNT_FORCE | MNT_DETACH))) return Err(EINVAL);
  At at{.start = target.start,
        .name = target.name,
        .follow = (flags & UMOUNT_NOFOLLOW) == 0,
        .empty_ok = target.empty_ok,
        .resolve = target.resolve};
  Path path = TRY(LookupMountPoint(walker, at));
  // What "." leads to may have been mounted on since: pivot_root(2), `pivot_root(".", ".")`.
  FollowMounts(path);
  if (!IsMountRoot(path)) return Err(EINVAL);
  Detached detached;
  sync::MutexLock lock(Mount::Tree());
  Mount& mount = *path.mount;
  // The namespace's own root stays.
  if (!mount.ParentLocked()) return Err(EINVAL);
  if ((flags & MNT_DETACH) == 0) {
    if (mount.HasChildrenLocked()) return Err(EBUSY);
    // One reference is the parent's, one is `path`; any more is a working directory, an open file, ...
    if (mount.RefCount() > 2) return Err(EBUSY);
    // Linux wants two calls with the flag and no use between; the first of the two looks the same to the caller.
    if (flags & MNT_EXPIRE) return Err(EAGAIN);
    detached.push_back(mount.DetachLocked());
    return {};
  }
  DetachTreeLocked(mount, detached);
  return {};
}

Result<> MountNamespace::PivotRoot(const Walker& walker, const At& new_root, const At& put_old) {
  Path next = TRY(LookupMountPoint(walker, new_root));
  Path old_at = TRY(Lookup(walker, put_old));
  if (!next.inode().IsDirectory() || !old_at.inode().IsDirectory()) return Err(ENOTDIR);
  const Path& root = walker.root;
  if (!IsMountRoot(next) || !IsMountRoot(root)) return Err(EINVAL);
  if (next.mount == root.mount || old_at.mount == root.mount) return Err(EBUSY);
  Mount::Detached detached_next, detached_root;
  RefPtr<Mount> old_top;
  Path parent_place;
  sync::MutexLock lock(Mount::Tree());
  if (!next.mount->ParentLocked()) return Err(EINVAL);
  if (!next.mount->IsAncestorOfLocked(*old_at.mount)) return Err(EINVAL);
  if (!root.mount->IsAncestorOfLocked(*next.mount)) return Err(EINVAL);
  if (old_at.mount == next.mount && !next.dentry->IsAncestorOf(*old_at.dentry)) return Err(EINVAL);
  detached_next = next.mount->DetachLocked();
  if (root.mount->ParentLocked()) {
    parent_place = Path(root.mount->ParentLocked(), root.mount->MountPointLocked());
    detached_root = root.mount->DetachLocked();
    parent_place.mount->AttachLocked(next.mount, parent_place.dentry);
  } else {
    if (root_ != root.mount) return Err(EINVAL);
    old_top = std::exchange(root_, next.mount);
  }
  FollowMountsLocked(old_at);
  old_at.mount->AttachLocked(root.mount, old_at.dentry);
  return {};
}

std::vector<MountInfo> MountNamespace::Mounts(const Path& root) {
  std::vector<RefPtr<Mount>> all;
  std::vector<uint64_t> parents;
  {
    sync::MutexLock lock(Mount::Tree());
    if (!root_) return {};
    all.push_back(root_);
    for (size_t i = 0; i < all.size(); i++) {
      parents.push_back(all[i]->ParentLocked() ? all[i]->ParentLocked()->id() : all[i]->id());
      for (Mount* child : all[i]->ChildrenLocked()) all.push_back(RefPtr<Mount>(child));
    }
  }
  std::vector<MountInfo> result;
  for (size_t i = 0; i < all.size(); i++) {
    Mount& mount = *all[i];
    NamedPath at = PathName(root, Path(all[i], mount.root()));
    if (!at.reachable) {
      // The root directory of a chroot need not be a mount point; the mount it lies on is listed as its root.
      if (!root || root.mount != all[i]) continue;
      at.name = "/";
    }
    MountInfo info{.id = mount.id(),
                   .parent_id = parents[i],
                   .dev = mount.filesystem().dev(),
                   .mount_point = std::move(at.name),
                   .ms_flags = mount.flags(),
                   .type = std::string(mount.filesystem().type_name()),
                   .source = mount.source(),
                   .options = mount.filesystem().MountOptions()};
    // The place of the mount's root within its file system: the name below no mount at all.
    std::string within;
    {
      sync::MutexLock dentries(Dentry::TreeLock());
      for (const Dentry* d = mount.root().get(); d->ParentLocked(); d = d->ParentLocked().get()) {
        within.insert(0, "/" + d->NameLocked());
      }
    }
    info.root = within.empty() ? "/" : within;
    if (mount.root()->deleted()) info.root += "//deleted";
    result.push_back(std::move(info));
  }
  return result;
}

}  // namespace redoubt::vfs
