#include "pkg/sentry/vfs/namei.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <utility>

#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

bool IsOwnerOrCapable(const auth::Credentials& creds, const Attributes& attrs) {
  return creds.fsuid == attrs.uid || creds.HasCapability(CAP_FOWNER);
}

Result<> CheckMayCreate(const auth::Credentials& creds, Dentry& dir) {
  if (dir.deleted()) return Err(ENOENT);
  return dir.inode().CheckPermission(creds, W_OK | X_OK);
}

Result<> CheckMayRemove(const auth::Credentials& creds, Dentry& dir, Dentry& child, Removal removal) {
  TRY(dir.inode().CheckPermission(creds, W_OK | X_OK));
  Attributes dir_attrs = TRY(dir.inode().GetAttributes());
  if ((dir_attrs.mode & S_ISVTX) && dir_attrs.uid != creds.fsuid && !creds.HasCapability(CAP_FOWNER)) {
    Attributes attrs = TRY(child.inode().GetAttributes());
    if (attrs.uid != creds.fsuid) return Err(EPERM);
  }
  if (removal == Removal::kRmdir) {
    if (!child.inode().IsDirectory()) return Err(ENOTDIR);
  } else {
    if (child.inode().IsDirectory()) return Err(EISDIR);
  }
  if (child.is_mountpoint() || child.kind() == DentryKind::kRoot) return Err(EBUSY);
  return {};
}

Result<NewInode> PrepareNewInode(const Walker& walker, Inode& dir, uint32_t mode, uint64_t rdev) {
  const auth::Credentials& creds = walker.creds;
  Attributes attrs = TRY(dir.GetAttributes());
  NewInode n{.mode = mode & ~(walker.umask & 0777), .uid = creds.fsuid, .gid = creds.fsgid, .rdev = rdev};
  if (attrs.mode & S_ISGID) {
    n.gid = attrs.gid;
    if (S_ISDIR(mode)) {
      n.mode |= S_ISGID;
    } else if ((n.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !creds.InGroup(n.gid) &&
               !creds.HasCapability(CAP_FSETID)) {
      n.mode &= ~S_ISGID;
    }
  }
  return n;
}

Result<> CreateName(const Walker& walker, const At& at, NewKind kind,
                    const std::function<Result<>(const Path& dir)>& check,
                    const std::function<Result<RefPtr<Inode>>(Dentry& dir, std::string_view name)>& make) {
  PathWalk walk(walker, at);
  TRY(walk.ToParent());
  if (walk.last_type() != PathWalk::LastType::kNormal) return Err(EEXIST);
  if (check) TRY(check(walk.path()));
  Dentry& dir = *walk.path().dentry;
  fiber::MutexLock lock(dir.dir_lock());
  RefPtr<Dentry> child = TRY(dir.LookupLocked(walk.last()));
  if (!child->negative()) return Err(EEXIST);
  if (walk.trailing_slash() && kind != NewKind::kDirectory) return Err(ENOENT);
  TRY(CheckWritableMount(walk.path()));
  TRY(CheckMayCreate(walker.creds, dir));
  RefPtr<Inode> inode = TRY(make(dir, walk.last()));
  dir.Insert(walk.last(), std::move(inode));
  NoteEntry(dir.inode(), walk.last(), kind == NewKind::kDirectory ? IN_CREATE | IN_ISDIR : IN_CREATE);
  return {};
}

Result<> CreateName(const Walker& walker, const At& at, NewKind kind,
                    const std::function<Result<RefPtr<Inode>>(Dentry& dir, std::string_view name)>& make) {
  return CreateName(walker, at, kind, nullptr, make);
}

Result<Path> Lookup(const Walker& walker, const At& at) { return PathWalk(walker, at).ToEnd(); }

Result<> Mkdir(const Walker& walker, const At& at, uint32_t mode) {
  return CreateName(walker, at, NewKind::kDirectory, [&](Dentry& dir, std::string_view name) -> Result<RefPtr<Inode>> {
    NewInode n = TRY(PrepareNewInode(walker, dir.inode(), S_IFDIR | (mode & 01777), 0));
    return dir.inode().Mkdir(name, n);
  });
}

Result<> Mknod(const Walker& walker, const At& at, uint32_t mode, uint64_t rdev) {
  switch (mode & S_IFMT) {
    case 0:
      mode |= S_IFREG;
      [[fallthrough]];
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
      rdev = 0;
      break;
    case S_IFCHR:
    case S_IFBLK:
      break;
    case S_IFDIR:
      return Err(EPERM);
    default:
      return Err(EINVAL);
  }
  return CreateName(walker, at, NewKind::kOther, [&](Dentry& dir, std::string_view name) -> Result<RefPtr<Inode>> {
    // A character device 0:0 is an overlay's whiteout, and anyone may make it.
    if ((S_ISCHR(mode) && rdev != 0) || S_ISBLK(mode)) {
      if (!walker.creds.HasCapability(CAP_MKNOD)) return Err(EPERM);
    }
    NewInode n = TRY(PrepareNewInode(walker, dir.inode(), mode & (S_IFMT | 07777), rdev));
    return dir.inode().Create(name, n);
  });
}

Result<> Symlink(const Walker& walker, std::string_view target, const At& at) {
  if (target.empty()) return Err(ENOENT);
  if (target.size() >= PATH_MAX) return Err(ENAMETOOLONG);
  return CreateName(walker, at, NewKind::kOther, [&](Dentry& dir, std::string_view name) -> Result<RefPtr<Inode>> {
    Walker no_umask{walker.creds, walker.root, 0};
    NewInode n = TRY(PrepareNewInode(no_umask, dir.inode(), S_IFLNK | 0777, 0));
    return dir.inode().Symlink(name, target, n);
  });
}

Result<> Link(const Walker& walker, const At& existing, const At& created) {
  Path old = TRY(Lookup(walker, existing));
  return CreateName(
      walker, created, NewKind::kOther,
      [&](const Path& dir) -> Result<> {
        if (dir.mount != old.mount) return Err(EXDEV);
        return {};
      },
      [&](Dentry& dir, std::string_view name) -> Result<RefPtr<Inode>> {
        if (old.inode().IsDirectory()) return Err(EPERM);
        if (&old.inode().filesystem() != &dir.inode().filesystem()) return Err(EXDEV);
        TRY(dir.inode().Link(name, old.inode()));
        Watches::NameMade(old.inode());
        NoteInode(old.inode(), IN_ATTRIB);
        return old.dentry->inode_ref();
      });
}

namespace {

Result<> Remove(const Walker& walker, const At& at, Removal removal) {
  PathWalk walk(walker, at);
  TRY(walk.ToParent());
  switch (walk.last_type()) {
    case PathWalk::LastType::kNormal:
      break;
    case PathWalk::LastType::kDot:
      return Err(removal == Removal::kRmdir ? EINVAL : EISDIR);
    case PathWalk::LastType::kDotDot:
      return Err(removal == Removal::kRmdir ? ENOTEMPTY : EISDIR);
    case PathWalk::LastType::kNone:
      return Err(removal == Removal::kRmdir ? EBUSY : EISDIR);
  }
  Dentry& dir = *walk.path().dentry;
  RefPtr<Dentry> child;  // dropped without the lock
  fiber::MutexLock lock(dir.dir_lock());
  child = TRY(dir.LookupLocked(walk.last()));
  if (child->negative()) return Err(ENOENT);
  if (removal == Removal::kUnlink && walk.trailing_slash()) {
    return Err(child->inode().IsDirectory() ? EISDIR : ENOTDIR);
  }
  TRY(CheckWritableMount(walk.path()));
  TRY(CheckMayRemove(walker.creds, dir, *child, removal));
  if (removal == Removal::kRmdir) {
    // Nothing may be made in it between the file system's look and its end.
    fiber::MutexLock child_lock(child->dir_lock());
    TRY(dir.inode().Rmdir(walk.last(), child->inode()));
    dir.Remove(*child);
  } else {
    TRY(dir.inode().Unlink(walk.last(), child->inode()));
    NoteInode(child->inode(), IN_ATTRIB);
    dir.Remove(*child);
  }
  if (AnyWatches()) [[unlikely]] {
    // The file's own end comes before its directory's event.
    child.reset();
    NoteEntry(dir.inode(), walk.last(), removal == Removal::kRmdir ? IN_DELETE | IN_ISDIR : IN_DELETE);
  }
  return {};
}

}  // namespace

Result<> Unlink(const Walker& walker, const At& at) { return Remove(walker, at, Removal::kUnlink); }
Result<> Rmdir(const Walker& walker, const At& at) { return Remove(walker, at, Removal::kRmdir); }

Result<std::string> Readlink(const Walker& walker, const At& at) {
  At no_follow{.start = at.start, .name = at.name, .follow = false, .empty_ok = at.empty_ok, .resolve = at.resolve};
  Path path = TRY(Lookup(walker, no_follow));
  if (!path.inode().IsSymlink()) return Err(at.name.empty() ? ENOENT : EINVAL);
  return path.inode().Readlink();
}

}  // namespace redoubt::vfs
