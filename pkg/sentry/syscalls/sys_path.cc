// Names: mkdir(2), unlink(2), rename(2), link(2), symlink(2), readlink(2), mknod(2), chdir(2), getcwd(2), chroot(2),
// chmod(2), chown(2), utimensat(2), access(2), mount(2), umount(2), xattrs.
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <utime.h>

#include <algorithm>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/file_systems.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

constexpr size_t kXattrNameMax = 255;
constexpr size_t kXattrSizeMax = 65536;
constexpr size_t kXattrListMax = 65536;

Result<uint64_t> DoMkdir(Task& task, int dirfd, Addr path, uint32_t mode) {
  AtPath at = TRY(AtPath::Make(task, dirfd, path, 0));
  TRY(vfs::Mkdir(at.walker(), at.at(), mode & 01777));
  return 0;
}

Result<uint64_t> DoMknod(Task& task, int dirfd, Addr path, uint32_t mode, uint64_t dev) {
  AtPath at = TRY(AtPath::Make(task, dirfd, path, 0, false));
  switch (mode & S_IFMT) {
    case 0:
      mode |= S_IFREG;
      break;
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
      break;
    case S_IFCHR:
    case S_IFBLK:
      if (!task.creds().HasCapability(CAP_MKNOD)) return Err(EPERM);
      break;
    case S_IFDIR:
      return Err(EPERM);
    default:
      return Err(EINVAL);
  }
  TRY(vfs::Mknod(at.walker(), at.at(), mode, dev));
  return 0;
}

Result<uint64_t> DoUnlink(Task& task, int dirfd, Addr path, bool directory) {
  AtPath at = TRY(AtPath::Make(task, dirfd, path, 0, false));
  TRY(directory ? vfs::Rmdir(at.walker(), at.at()) : vfs::Unlink(at.walker(), at.at()));
  return 0;
}

Result<uint64_t> DoRename(Task& task, int from_fd, Addr from, int to_fd, Addr to, uint32_t flags) {
  if ((flags & ~uint32_t{RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT}) != 0) return Err(EINVAL);
  if ((flags & RENAME_EXCHANGE) != 0 && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) != 0) return Err(EINVAL);
  if ((flags & RENAME_WHITEOUT) != 0) return Err(EINVAL);
  AtPath a = TRY(AtPath::Make(task, from_fd, from, 0, false));
  AtPath b = TRY(AtPath::Make(task, to_fd, to, 0, false));
  TRY(vfs::Rename(a.walker(), a.at(), b.at(), flags));
  return 0;
}

Result<uint64_t> DoLink(Task& task, int from_fd, Addr from, int to_fd, Addr to, int flags) {
  if ((flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) != 0) return Err(EINVAL);
  AtPath a = TRY(AtPath::Make(task, from_fd, from, flags, false));
  AtPath b = TRY(AtPath::Make(task, to_fd, to, 0, false));
  TRY(vfs::Link(a.walker(), a.at(), b.at()));
  return 0;
}

Result<uint64_t> DoSymlink(Task& task, Addr target, int dirfd, Addr path) {
  std::string text = TRY(CopyInPath(task, target));
  if (text.empty()) return Err(ENOENT);
  AtPath at = TRY(AtPath::Make(task, dirfd, path, 0, false));
  TRY(vfs::Symlink(at.walker(), text, at.at()));
  return 0;
}

Result<uint64_t> DoReadlink(Task& task, int dirfd, Addr path, Addr buffer, int size) {
  if (size <= 0) return Err(EINVAL);
  AtPath at = TRY(AtPath::Make(task, dirfd, path, AT_EMPTY_PATH, false));
  // readlinkat(2): an empty name is the descriptor's own link.
  if (at.name().empty() && dirfd == AT_FDCWD) return Err(ENOENT);
  std::string target = TRY(vfs::Readlink(at.walker(), at.at()));
  size_t n = std::min<size_t>(target.size(), size);
  TRY(task.mm().CopyOutAll(buffer, std::as_bytes(std::span(target.data(), n))));
  return n;
}

Result<uint64_t> DoChmod(Task& task, int dirfd, Addr path, uint32_t mode, int flags) {
  AtPath at = TRY(AtPath::Make(task, dirfd, path, flags));
  vfs::Path found = TRY(at.Lookup());
  if (found.inode().IsSymlink()) return Err(EOPNOTSUPP);
  TRY(vfs::Chmod(at.walker(), found, mode & 07777));
  return 0;
}

// -1: leave.
Result<> CheckOwner(Task& task, uint32_t uid, uint32_t gid) {
  constexpr uint32_t kLeave = ~uint32_t{0};
  const kernel::Container& container = *task.group().container;
  if ((uid != kLeave && !container.HasUid(uid)) || (gid != kLeave && !container.HasGid(gid))) return Err(EINVAL);
  return {};
}

Result<uint64_t> DoChown(Task& task, int dirfd, Addr path, uint32_t uid, uint32_t gid, int flags) {
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Err(EINVAL);
  AtPath at = TRY(AtPath::Make(task, dirfd, path, flags));
  vfs::Path found = TRY(at.Lookup());
  TRY(CheckOwner(task, uid, gid));
  TRY(vfs::Chown(at.walker(), found, static_cast<int32_t>(uid), static_cast<int32_t>(gid)));
  return 0;
}

// access(2) asks for the real IDs.
Result<uint64_t> DoAccess(Task& task, int dirfd, Addr path, int mode, int flags) {
  if ((mode & ~(R_OK | W_OK | X_OK)) != 0) return Err(EINVAL);
  if ((flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Err(EINVAL);
  AtPath at = TRY(AtPath::Make(task, dirfd, path, flags));
  RefPtr<auth::Credentials> creds = task.creds().Clone();
  if ((flags & AT_EACCESS) == 0) {
    creds->fsuid = creds->ruid;
    creds->fsgid = creds->rgid;
    creds->effective = creds->ruid == 0 ? creds->permitted : 0;
  }
  vfs::Path root = task.fs().root();
  vfs::Walker walker{*creds, root, 0};
  TRY(vfs::Access(walker, at.at(), mode));
  return 0;
}

Result<uint64_t> DoUtimes(Task& task, int dirfd, Addr path, vfs::TimeChange atime, vfs::TimeChange mtime, int flags) {
  if (path == 0 && dirfd != AT_FDCWD) {
    // futimens: the descriptor itself.
    FdTable::File file = TRY(task.File(dirfd));
    if ((file->flags() & O_PATH) != 0) return Err(EBADF);
    Task::WalkState walk = task.Walk();
    TRY(vfs::Utimes(walk.walker(), file->path(), atime, mtime));
    return 0;
  }
  AtPath at = TRY(AtPath::Make(task, dirfd, path, flags));
  TRY(vfs::Utimes(at.walker(), TRY(at.Lookup()), atime, mtime));
  return 0;
}

Result<vfs::TimeChange> ToTimeChange(const timespec& ts) {
  if (ts.tv_nsec == UTIME_NOW) return vfs::TimeChange{.kind = vfs::TimeChange::Kind::kNow};
  if (ts.tv_nsec == UTIME_OMIT) return vfs::TimeChange{.kind = vfs::TimeChange::Kind::kOmit};
  if (ts.tv_nsec < 0 || ts.tv_nsec >= 1'000'000'000) return Err(EINVAL);
  return vfs::TimeChange{.kind = vfs::TimeChange::Kind::kSet, .value = clock::FromTimespec(ts)};
}

Result<uint64_t> DoFutimesat(Task& task, int dirfd, Addr path, Addr times) {
  vfs::TimeChange atime{.kind = vfs::TimeChange::Kind::kNow};
  vfs::TimeChange mtime = atime;
  if (times != 0) {
    auto tv = TRY(task.mm().CopyInObject<std::array<timeval, 2>>(times));
    for (const timeval& t : tv) {
      if (t.tv_usec < 0 || t.tv_usec >= 1'000'000) return Err(EINVAL);
    }
    atime = TRY(ToTimeChange({.tv_sec = tv[0].tv_sec, .tv_nsec = tv[0].tv_usec * 1000}));
    mtime = TRY(ToTimeChange({.tv_sec = tv[1].tv_sec, .tv_nsec = tv[1].tv_usec * 1000}));
  }
  return DoUtimes(task, dirfd, path, atime, mtime, 0);
}

// What an xattr call works on.
struct XattrTarget {
  Task::WalkState walk;
  vfs::Path path;
};
Result<XattrTarget> XattrOfPath(Task& task, Addr path, bool follow) {
  AtPath at = TRY(AtPath::Make(task, AT_FDCWD, path, 0, follow));
  // First: of an aggregate that TRY leaves unfinished GCC does not destroy the members that are there.
  vfs::Path found = TRY(at.Lookup());
  return XattrTarget{task.Walk(), std::move(found)};
}
Result<XattrTarget> XattrOfFd(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  return XattrTarget{task.Walk(), file->path()};
}

Result<std::string> CopyInXattrName(Task& task, Addr addr) {
  Result<std::string> name = task.mm().CopyInString(addr, kXattrNameMax + 1);
  if (!name && name.error() == Errno(ENAMETOOLONG)) return Err(ERANGE);
  if (name && name->empty()) return Err(ERANGE);
  return name;
}

Result<uint64_t> DoGetxattr(Task& task, Result<XattrTarget> target, const SyscallArgs& a) {
  XattrTarget t = TRY(std::move(target));
  std::string name = TRY(CopyInXattrName(task, a.Pointer(1)));
  std::string value = TRY(vfs::GetXattr(t.walk.walker(), t.path, name));
  if (a.Size(3) == 0) return value.size();
  if (value.size() > a.Size(3)) return Err(ERANGE);
  TRY(task.mm().CopyOutAll(a.Pointer(2), std::as_bytes(std::span(value))));
  return value.size();
}

Result<uint64_t> DoSetxattr(Task& task, Result<XattrTarget> target, const SyscallArgs& a) {
  if ((a.I32(4) & ~(XATTR_CREATE | XATTR_REPLACE)) != 0) return Err(EINVAL);
  XattrTarget t = TRY(std::move(target));
  std::string name = TRY(CopyInXattrName(task, a.Pointer(1)));
  if (a.Size(3) > kXattrSizeMax) return Err(E2BIG);
  std::vector<char> value = TRY(task.mm().CopyInVector<char>(a.Pointer(2), a.Size(3)));
  TRY(vfs::SetXattr(t.walk.walker(), t.path, name, std::string_view(value.data(), value.size()), a.I32(4)));
  return 0;
}

Result<uint64_t> DoListxattr(Task& task, Result<XattrTarget> target, const SyscallArgs& a) {
  XattrTarget t = TRY(std::move(target));
  std::string joined;
  for (const std::string& name : TRY(vfs::ListXattr(t.walk.walker(), t.path))) {
    joined += name;
    joined += '\0';
  }
  if (joined.size() > kXattrListMax) return Err(E2BIG);
  if (a.Size(2) == 0) return joined.size();
  if (joined.size() > a.Size(2)) return Err(ERANGE);
  TRY(task.mm().CopyOutAll(a.Pointer(1), std::as_bytes(std::span(joined))));
  return joined.size();
}

Result<uint64_t> DoRemovexattr(Task& task, Result<XattrTarget> target, const SyscallArgs& a) {
  XattrTarget t = TRY(std::move(target));
  std::string name = TRY(CopyInXattrName(task, a.Pointer(1)));
  TRY(vfs::RemoveXattr(t.walk.walker(), t.path, name));
  return 0;
}

}  // namespace

Result<uint64_t> Mkdir(Task& task, const SyscallArgs& a) { return DoMkdir(task, AT_FDCWD, a.Pointer(0), a.U32(1)); }
Result<uint64_t> Mkdirat(Task& task, const SyscallArgs& a) { return DoMkdir(task, a.I32(0), a.Pointer(1), a.U32(2)); }
Result<uint64_t> Mknod(Task& task, const SyscallArgs& a) {
  return DoMknod(task, AT_FDCWD, a.Pointer(0), a.U32(1), a.U32(2));
}
Result<uint64_t> Mknodat(Task& task, const SyscallArgs& a) {
  return DoMknod(task, a.I32(0), a.Pointer(1), a.U32(2), a.U32(3));
}
Result<uint64_t> Rmdir(Task& task, const SyscallArgs& a) { return DoUnlink(task, AT_FDCWD, a.Pointer(0), true); }
Result<uint64_t> Unlink(Task& task, const SyscallArgs& a) { return DoUnlink(task, AT_FDCWD, a.Pointer(0), false); }
Result<uint64_t> Unlinkat(Task& task, const SyscallArgs& a) {
  if ((a.I32(2) & ~AT_REMOVEDIR) != 0) return Err(EINVAL);
  return DoUnlink(task, a.I32(0), a.Pointer(1), (a.I32(2) & AT_REMOVEDIR) != 0);
}
Result<uint64_t> Rename(Task& task, const SyscallArgs& a) {
  return DoRename(task, AT_FDCWD, a.Pointer(0), AT_FDCWD, a.Pointer(1), 0);
}
Result<uint64_t> Renameat(Task& task, const SyscallArgs& a) {
  return DoRename(task, a.I32(0), a.Pointer(1), a.I32(2), a.Pointer(3), 0);
}
Result<uint64_t> Renameat2(Task& task, const SyscallArgs& a) {
  return DoRename(task, a.I32(0), a.Pointer(1), a.I32(2), a.Pointer(3), a.U32(4));
}
Result<uint64_t> Link(Task& task, const SyscallArgs& a) {
  return DoLink(task, AT_FDCWD, a.Pointer(0), AT_FDCWD, a.Pointer(1), 0);
}
Result<uint64_t> Linkat(Task& task, const SyscallArgs& a) {
  return DoLink(task, a.I32(0), a.Pointer(1), a.I32(2), a.Pointer(3), a.I32(4));
}
Result<uint64_t> Symlink(Task& task, const SyscallArgs& a) {
  return DoSymlink(task, a.Pointer(0), AT_FDCWD, a.Pointer(1));
}
Result<uint64_t> Symlinkat(Task& task, const SyscallArgs& a) {
  return DoSymlink(task, a.Pointer(0), a.I32(1), a.Pointer(2));
}
Result<uint64_t> Readlink(Task& task, const SyscallArgs& a) {
  return DoReadlink(task, AT_FDCWD, a.Pointer(0), a.Pointer(1), a.I32(2));
}
Result<uint64_t> Readlinkat(Task& task, const SyscallArgs& a) {
  return DoReadlink(task, a.I32(0), a.Pointer(1), a.Pointer(2), a.I32(3));
}

Result<uint64_t> Chmod(Task& task, const SyscallArgs& a) { return DoChmod(task, AT_FDCWD, a.Pointer(0), a.U32(1), 0); }
Result<uint64_t> Fchmodat(Task& task, const SyscallArgs& a) {
  return DoChmod(task, a.I32(0), a.Pointer(1), a.U32(2), 0);
}
Result<uint64_t> Fchmodat2(Task& task, const SyscallArgs& a) {
  if ((a.I32(3) & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Err(EINVAL);
  return DoChmod(task, a.I32(0), a.Pointer(1), a.U32(2), a.I32(3));
}
Result<uint64_t> Fchmod(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  Task::WalkState walk = task.Walk();
  TRY(vfs::Chmod(walk.walker(), file->path(), a.U32(1) & 07777));
  return 0;
}
Result<uint64_t> Chown(Task& task, const SyscallArgs& a) {
  return DoChown(task, AT_FDCWD, a.Pointer(0), a.U32(1), a.U32(2), 0);
}
Result<uint64_t> Lchown(Task& task, const SyscallArgs& a) {
  return DoChown(task, AT_FDCWD, a.Pointer(0), a.U32(1), a.U32(2), AT_SYMLINK_NOFOLLOW);
}
Result<uint64_t> Fchownat(Task& task, const SyscallArgs& a) {
  return DoChown(task, a.I32(0), a.Pointer(1), a.U32(2), a.U32(3), a.I32(4));
}
Result<uint64_t> Fchown(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  Task::WalkState walk = task.Walk();
  TRY(CheckOwner(task, a.U32(1), a.U32(2)));
  TRY(vfs::Chown(walk.walker(), file->path(), a.I32(1), a.I32(2)));
  return 0;
}

Result<uint64_t> Access(Task& task, const SyscallArgs& a) {
  return DoAccess(task, AT_FDCWD, a.Pointer(0), a.I32(1), 0);
}
Result<uint64_t> Faccessat(Task& task, const SyscallArgs& a) {
  return DoAccess(task, a.I32(0), a.Pointer(1), a.I32(2), 0);
}
Result<uint64_t> Faccessat2(Task& task, const SyscallArgs& a) {
  return DoAccess(task, a.I32(0), a.Pointer(1), a.I32(2), a.I32(3));
}

Result<uint64_t> Utimensat(Task& task, const SyscallArgs& a) {
  if ((a.I32(3) & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Err(EINVAL);
  vfs::TimeChange atime{.kind = vfs::TimeChange::Kind::kNow};
  vfs::TimeChange mtime = atime;
  if (a.Pointer(2) != 0) {
    auto ts = TRY(task.mm().CopyInObject<std::array<timespec, 2>>(a.Pointer(2)));
    atime = TRY(ToTimeChange(ts[0]));
    mtime = TRY(ToTimeChange(ts[1]));
    if (atime.kind == vfs::TimeChange::Kind::kOmit && mtime.kind == vfs::TimeChange::Kind::kOmit) return 0;
  }
  return DoUtimes(task, a.I32(0), a.Pointer(1), atime, mtime, a.I32(3));
}
Result<uint64_t> Utimes(Task& task, const SyscallArgs& a) {
  return DoFutimesat(task, AT_FDCWD, a.Pointer(0), a.Pointer(1));
}
Result<uint64_t> Futimesat(Task& task, const SyscallArgs& a) {
  return DoFutimesat(task, a.I32(0), a.Pointer(1), a.Pointer(2));
}
Result<uint64_t> Utime(Task& task, const SyscallArgs& a) {
  vfs::TimeChange atime{.kind = vfs::TimeChange::Kind::kNow};
  vfs::TimeChange mtime = atime;
  if (a.Pointer(1) != 0) {
    utimbuf times = TRY(task.mm().CopyInObject<utimbuf>(a.Pointer(1)));
    atime = TRY(ToTimeChange({.tv_sec = times.actime, .tv_nsec = 0}));
    mtime = TRY(ToTimeChange({.tv_sec = times.modtime, .tv_nsec = 0}));
  }
  return DoUtimes(task, AT_FDCWD, a.Pointer(0), atime, mtime, 0);
}

Result<uint64_t> Chdir(Task& task, const SyscallArgs& a) {
  AtPath at = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0));
  vfs::Path path = TRY(at.Lookup());
  if (!path.inode().IsDirectory()) return Err(ENOTDIR);
  TRY(path.inode().CheckPermission(task.creds(), X_OK));
  task.fs().SetCwd(std::move(path));
  return 0;
}

Result<uint64_t> Fchdir(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if (!file->path() || !file->inode().IsDirectory()) return Err(ENOTDIR);
  TRY(file->inode().CheckPermission(task.creds(), X_OK));
  task.fs().SetCwd(file->path());
  return 0;
}

Result<uint64_t> Chroot(Task& task, const SyscallArgs& a) {
  AtPath at = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0));
  vfs::Path path = TRY(at.Lookup());
  if (!path.inode().IsDirectory()) return Err(ENOTDIR);
  TRY(path.inode().CheckPermission(task.creds(), X_OK));
  if (!task.creds().HasCapability(CAP_SYS_CHROOT)) return Err(EPERM);
  task.fs().SetRoot(std::move(path));
  return 0;
}

Result<uint64_t> PivotRoot(Task& task, const SyscallArgs& a) {
  if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  AtPath new_root = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0));
  AtPath put_old = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(1), 0));
  RefPtr<vfs::MountNamespace> ns = task.GetMountNamespace();
  vfs::Path old_root = task.fs().root();
  // pivot_root(2): root and working directories that were the old root move to the new one, also where the old is now
  // mounted on it.
  vfs::Path moved = TRY(new_root.Lookup());
  TRY(ns->PivotRoot(new_root.walker(), new_root.at(), put_old.at()));
  for (const auto& group : task.kernel().Groups()) {
    for (const auto& t : task.kernel().TasksOf(*group)) {
      RefPtr<kernel::FsContext> fs = t->GetFs();
      if (!fs || t->GetMountNamespace() != ns) continue;
      if (fs->root() == old_root) fs->SetRoot(moved);
      if (fs->cwd() == old_root) fs->SetCwd(moved);
    }
  }
  return 0;
}

Result<uint64_t> Getcwd(Task& task, const SyscallArgs& a) {
  vfs::NamedPath name = vfs::PathName(task.fs().root(), task.fs().cwd());
  if (name.deleted) return Err(ENOENT);
  size_t length = name.name.size() + 1;
  if (length > a.Size(1)) return Err(ERANGE);
  TRY(task.mm().CopyOutAll(a.Pointer(0), std::as_bytes(std::span(name.name.c_str(), length))));
  return length;
}

Result<uint64_t> Umask(Task& task, const SyscallArgs& a) { return task.fs().SetUmask(a.U32(0)); }

Result<uint64_t> Mount(Task& task, const SyscallArgs& a) {
  uint64_t flags = a.U64(3);
  // mount(2): a magic number of old in the upper half is ignored.
  if ((flags & 0xffff0000) == MS_MGC_VAL) flags &= 0xffff;
  AtPath target = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(1), 0));
  if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  RefPtr<vfs::MountNamespace> ns = task.GetMountNamespace();
  if ((flags & MS_REMOUNT) != 0) {
    TRY(ns->RemountAt(target.walker(), target.at(), flags));
    return 0;
  }
  if ((flags & MS_BIND) != 0 || (flags & MS_MOVE) != 0) {
    if (a.Pointer(0) == 0) return Err(EINVAL);
    AtPath source = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0));
    if ((flags & MS_BIND) != 0) {
      TRY(ns->BindAt(target.walker(), source.at(), target.at(), (flags & MS_REC) != 0));
    } else {
      TRY(ns->MoveAt(target.walker(), source.at(), target.at()));
    }
    return 0;
  }
  // There are no peers to propagate to: one mount namespace is never told of another's mounts, which is MS_PRIVATE.
  if ((flags & (MS_PRIVATE | MS_SLAVE | MS_SHARED | MS_UNBINDABLE)) != 0) {
    (void)TRY(target.Lookup());
    return 0;
  }
  if (a.Pointer(2) == 0) return Err(EINVAL);
  std::string type = TRY(task.mm().CopyInString(a.Pointer(2), kPathMax));
  std::string source = "none";
  if (a.Pointer(0) != 0) source = TRY(task.mm().CopyInString(a.Pointer(0), kPathMax));
  std::string data;
  if (a.Pointer(4) != 0) data = TRY(task.mm().CopyInString(a.Pointer(4), kPageSize));
  RefPtr<vfs::Filesystem> fs = TRY(MakeFilesystem(type, source, data));
  TRY(ns->MountAt(target.walker(), target.at(), std::move(fs), flags, source));
  return 0;
}

Result<uint64_t> Umount2(Task& task, const SyscallArgs& a) {
  constexpr int kUmountFlags = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
  if ((a.I32(1) & ~kUmountFlags) != 0) return Err(EINVAL);
  if (!task.creds().HasCapability(CAP_SYS_ADMIN)) return Err(EPERM);
  AtPath target = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0, (a.I32(1) & UMOUNT_NOFOLLOW) == 0));
  TRY(task.GetMountNamespace()->UmountAt(target.walker(), target.at(), a.I32(1)));
  return 0;
}

Result<uint64_t> Getxattr(Task& t, const SyscallArgs& a) {
  return DoGetxattr(t, XattrOfPath(t, a.Pointer(0), true), a);
}
Result<uint64_t> Lgetxattr(Task& t, const SyscallArgs& a) {
  return DoGetxattr(t, XattrOfPath(t, a.Pointer(0), false), a);
}
Result<uint64_t> Fgetxattr(Task& t, const SyscallArgs& a) { return DoGetxattr(t, XattrOfFd(t, a.I32(0)), a); }
Result<uint64_t> Setxattr(Task& t, const SyscallArgs& a) {
  return DoSetxattr(t, XattrOfPath(t, a.Pointer(0), true), a);
}
Result<uint64_t> Lsetxattr(Task& t, const SyscallArgs& a) {
  return DoSetxattr(t, XattrOfPath(t, a.Pointer(0), false), a);
}
Result<uint64_t> Fsetxattr(Task& t, const SyscallArgs& a) { return DoSetxattr(t, XattrOfFd(t, a.I32(0)), a); }
Result<uint64_t> Listxattr(Task& t, const SyscallArgs& a) {
  return DoListxattr(t, XattrOfPath(t, a.Pointer(0), true), a);
}
Result<uint64_t> Llistxattr(Task& t, const SyscallArgs& a) {
  return DoListxattr(t, XattrOfPath(t, a.Pointer(0), false), a);
}
Result<uint64_t> Flistxattr(Task& t, const SyscallArgs& a) { return DoListxattr(t, XattrOfFd(t, a.I32(0)), a); }
Result<uint64_t> Removexattr(Task& t, const SyscallArgs& a) {
  return DoRemovexattr(t, XattrOfPath(t, a.Pointer(0), true), a);
}
Result<uint64_t> Lremovexattr(Task& t, const SyscallArgs& a) {
  return DoRemovexattr(t, XattrOfPath(t, a.Pointer(0), false), a);
}
Result<uint64_t> Fremovexattr(Task& t, const SyscallArgs& a) { return DoRemovexattr(t, XattrOfFd(t, a.I32(0)), a); }

}  // namespace redoubt::syscalls
