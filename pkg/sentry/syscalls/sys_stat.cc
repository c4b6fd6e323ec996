// stat(2), statx(2), statfs(2).
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <utility>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/vfs/mount.h"

namespace redoubt::syscalls {
namespace {

// glibc's struct stat on x86-64 is the kernel's.
struct stat ToStat(const vfs::Attributes& a) {
  struct stat st;
  std::memset(&st, 0, sizeof(st));
  st.st_dev = a.dev;
  st.st_ino = a.ino;
  st.st_nlink = a.nlink;
  st.st_mode = a.mode;
  st.st_uid = a.uid;
  st.st_gid = a.gid;
  st.st_rdev = a.rdev;
  st.st_size = static_cast<off_t>(a.size);
  st.st_blksize = a.blksize;
  st.st_blocks = static_cast<blkcnt_t>(a.blocks);
  st.st_atim = clock::ToTimespec(a.atime);
  st.st_mtim = clock::ToTimespec(a.mtime);
  st.st_ctim = clock::ToTimespec(a.ctime);
  return st;
}

statx_timestamp ToStatxTime(clock::Nanoseconds ns) {
  timespec ts = clock::ToTimespec(ns);
  statx_timestamp t;
  std::memset(&t, 0, sizeof(t));
  t.tv_sec = ts.tv_sec;
  t.tv_nsec = static_cast<uint32_t>(ts.tv_nsec);
  return t;
}

// And the place, if `where` is given.
Result<vfs::Attributes> AttributesAt(Task& task, int dirfd, Addr path, int flags, vfs::Path* where = nullptr) {
  AtPath at = TRY(AtPath::Make(task, dirfd, path, flags));
  if (at.name().empty() && (flags & AT_EMPTY_PATH) != 0 && dirfd != AT_FDCWD) {
    FdTable::File file = TRY(task.File(dirfd));
    if (where != nullptr) *where = file->path();
    return file->GetAttributes();
  }
  vfs::Path found = TRY(at.Lookup());
  Result<vfs::Attributes> attributes = found.inode().GetAttributes();
  if (where != nullptr) *where = std::move(found);
  return attributes;
}

Result<uint64_t> DoStat(Task& task, int dirfd, Addr path, Addr out, int flags) {
  TRY(task.mm().CopyOutObject(out, ToStat(TRY(AttributesAt(task, dirfd, path, flags)))));
  return 0;
}

}  // namespace

Result<uint64_t> Stat(Task& task, const SyscallArgs& a) {
  return DoStat(task, AT_FDCWD, a.Pointer(0), a.Pointer(1), 0);
}
Result<uint64_t> Lstat(Task& task, const SyscallArgs& a) {
  return DoStat(task, AT_FDCWD, a.Pointer(0), a.Pointer(1), AT_SYMLINK_NOFOLLOW);
}
Result<uint64_t> Newfstatat(Task& task, const SyscallArgs& a) {
  if ((a.I32(3) & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT)) != 0) return Err(EINVAL);
  return DoStat(task, a.I32(0), a.Pointer(1), a.Pointer(2), a.I32(3));
}
Result<uint64_t> Fstat(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  TRY(task.mm().CopyOutObject(a.Pointer(1), ToStat(TRY(file->GetAttributes()))));
  return 0;
}

Result<uint64_t> Statx(Task& task, const SyscallArgs& a) {
  int flags = a.I32(2);
  constexpr int kFlags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE;
  if ((flags & ~kFlags) != 0 || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE) return Err(EINVAL);
  if ((a.U32(3) & STATX__RESERVED) != 0) return Err(EINVAL);
  vfs::Path where;
  vfs::Attributes at = TRY(AttributesAt(task, a.I32(0), a.Pointer(1), flags & ~AT_STATX_SYNC_TYPE, &where));
  struct statx sx;
  std::memset(&sx, 0, sizeof(sx));
  sx.stx_mask = STATX_BASIC_STATS | (at.btime != 0 ? STATX_BTIME : 0);
  sx.stx_blksize = at.blksize;
  sx.stx_nlink = at.nlink;
  sx.stx_uid = at.uid;
  sx.stx_gid = at.gid;
  sx.stx_mode = static_cast<uint16_t>(at.mode);
  sx.stx_ino = at.ino;
  sx.stx_size = at.size;
  sx.stx_blocks = at.blocks;
  sx.stx_atime = ToStatxTime(at.atime);
  sx.stx_mtime = ToStatxTime(at.mtime);
  sx.stx_ctime = ToStatxTime(at.ctime);
  sx.stx_btime = ToStatxTime(at.btime);
  sx.stx_rdev_major = major(at.rdev);
  sx.stx_rdev_minor = minor(at.rdev);
  sx.stx_dev_major = major(at.dev);
  sx.stx_dev_minor = minor(at.dev);
  if (where) {
    sx.stx_mask |= STATX_MNT_ID;
    sx.stx_mnt_id = where.mount->id();
    sx.stx_attributes_mask |= STATX_ATTR_MOUNT_ROOT;
    if (where.dentry == where.mount->root()) sx.stx_attributes |= STATX_ATTR_MOUNT_ROOT;
  }
  TRY(task.mm().CopyOutObject(a.Pointer(4), sx));
  return 0;
}

Result<uint64_t> Statfs(Task& task, const SyscallArgs& a) {
  AtPath at = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0));
  TRY(task.mm().CopyOutObject(a.Pointer(1), TRY(vfs::Statfs(TRY(at.Lookup())))));
  return 0;
}

Result<uint64_t> Fstatfs(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  TRY(task.mm().CopyOutObject(a.Pointer(1), TRY(vfs::Statfs(file->path()))));
  return 0;
}

}  // namespace redoubt::syscalls
