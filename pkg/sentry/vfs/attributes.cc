#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/namei.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

uint32_t ModeAfterWrite(uint32_t mode) {
  mode &= ~uint32_t{S_ISUID};
  // Without group execution the bit means mandatory locking, and stays.
  if (mode & S_IXGRP) mode &= ~uint32_t{S_ISGID};
  return mode;
}

uint64_t MountFlags(const Path& path) { return path.mount->flags(); }

Result<> CheckWritableMount(const Path& path) {
  if (path.mount->flags() & MS_RDONLY) return Err(EROFS);
  return {};
}

bool ShouldUpdateAtime(const Path& path, int open_flags, const Attributes& attrs, clock::Nanoseconds now) {
  if (open_flags & O_NOATIME) return false;
  const uint64_t flags = path ? path.mount->flags() : 0;
  if (flags & (MS_NOATIME | MS_RDONLY)) return false;
  if ((flags & MS_NODIRATIME) && S_ISDIR(attrs.mode)) return false;
  if (flags & MS_STRICTATIME) return true;
  constexpr clock::Nanoseconds kDay = int64_t{24} * 3600 * 1'000'000'000;
  return attrs.atime <= attrs.mtime || attrs.atime <= attrs.ctime || now - attrs.atime >= kDay;
}

Result<> CheckExecutable(const Walker& walker, const Path& path) {
  if (!path.inode().IsRegular() || (path.mount->flags() & MS_NOEXEC)) return Err(EACCES);
  return path.inode().CheckPermission(walker.creds, X_OK);
}

Result<Attributes> Stat(const Walker& walker, const At& at) {
  Path path = TRY(Lookup(walker, at));
  return path.inode().GetAttributes();
}

Result<struct statfs> Statfs(const Path& path) {
  struct statfs result = TRY(path.mount->filesystem().Statfs());
  // statfs(2): ST_VALID and the mount's flags, with the ST_ numbers.
  constexpr uint64_t kStValid = 0x20, kStRelatime = 0x1000;
  const uint64_t flags = path.mount->flags();
  if (&path.inode().filesystem() == &AnonymousFilesystem()) {
    // One file system here, several on Linux.
    if (path.inode().type() == S_IFIFO) result.f_type = PIPEFS_MAGIC;
    if (path.inode().type() == S_IFSOCK) result.f_type = SOCKFS_MAGIC;
  }
  result.f_flags = kStValid | (flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC));
  if (flags & MS_NOATIME) result.f_flags |= 0x400;
  if (flags & MS_NODIRATIME) result.f_flags |= 0x800;
  if ((flags & (MS_NOATIME | MS_STRICTATIME)) == 0) result.f_flags |= kStRelatime;
  return result;
}

Result<> Access(const Walker& walker, const At& at, int may) {
  if (may & ~(R_OK | W_OK | X_OK)) return Err(EINVAL);
  Path path = TRY(Lookup(walker, at));
  Inode& inode = path.inode();
  if ((may & X_OK) && inode.IsRegular() && (path.mount->flags() & MS_NOEXEC)) return Err(EACCES);
  TRY(inode.CheckPermission(walker.creds, may));
  const uint32_t type = inode.type();
  // Devices and FIFOs can be written on a read-only file system.
  if ((may & W_OK) && (type == S_IFREG || type == S_IFDIR || type == S_IFLNK)) TRY(CheckWritableMount(path));
  return {};
}

namespace {

// As which events Linux reports a change (inotify(7) tells half of it).
uint32_t EventsOf(const AttributeChange& change) {
  uint32_t events = 0;
  if (change.mode || change.uid || change.gid || (change.atime && change.mtime)) events |= IN_ATTRIB;
  if (change.size || (change.mtime && !change.atime)) events |= IN_MODIFY;
  if (change.atime && !change.mtime) events |= IN_ACCESS;
  return events;
}

Result<> SetAttributes(const Path& path, const AttributeChange& change) {
  TRY(path.inode().SetAttributes(change));
  NoteDentry(*path.dentry, EventsOf(change));
  return {};
}

}  // namespace

Result<> Chmod(const Walker& walker, const Path& path, uint32_t mode) {
  TRY(CheckWritableMount(path));
  if (path.inode().IsSymlink()) return Err(EOPNOTSUPP);
  Attributes attrs = TRY(path.inode().GetAttributes());
  if (!IsOwnerOrCapable(walker.creds, attrs)) return Err(EPERM);
  mode &= 07777;
  if (!walker.creds.InGroup(attrs.gid) && !walker.creds.HasCapability(CAP_FSETID)) mode &= ~uint32_t{S_ISGID};
  return SetAttributes(path, {.mode = mode});
}

Result<> Chown(const Walker& walker, const Path& path, int64_t uid, int64_t gid) {
  TRY(CheckWritableMount(path));
  const auth::Credentials& creds = walker.creds;
  Attributes attrs = TRY(path.inode().GetAttributes());
  const bool capable = creds.HasCapability(CAP_CHOWN);
  const bool owner = creds.fsuid == attrs.uid;
  AttributeChange change;
  if (uid != -1) {
    change.uid = static_cast<uint32_t>(uid);
    if (!capable && !(owner && *change.uid == attrs.uid)) return Err(EPERM);
  }
  if (gid != -1) {
    change.gid = static_cast<uint32_t>(gid);
    if (!capable && !(owner && (*change.gid == attrs.gid || creds.InGroup(*change.gid)))) return Err(EPERM);
  }
  if (!S_ISDIR(attrs.mode)) {
    uint32_t mode = ModeAfterWrite(attrs.mode & 07777);
    if (mode != (attrs.mode & 07777)) change.mode = mode;
  }
  return SetAttributes(path, change);
}

namespace {

Result<AttributeChange> TruncateChange(const auth::Credentials& creds, Inode& inode, uint64_t size) {
  AttributeChange change{.size = size};
  if (!creds.HasCapability(CAP_FSETID)) {
    Attributes attrs = TRY(inode.GetAttributes());
    uint32_t mode = ModeAfterWrite(attrs.mode & 07777);
    if (mode != (attrs.mode & 07777)) change.mode = mode;
  }
  return change;
}

}  // namespace

Result<> Truncate(const Walker& walker, const Path& path, uint64_t size) {
  Inode& inode = path.inode();
  if (inode.IsDirectory()) return Err(EISDIR);
  if (!inode.IsRegular()) return Err(EINVAL);
  TRY(CheckWritableMount(path));
  TRY(inode.CheckPermission(walker.creds, W_OK));
  AttributeChange change = TRY(TruncateChange(walker.creds, inode, size));
  return SetAttributes(path, change);
}

Result<> FTruncate(const auth::Credentials& creds, FileDescription& file, uint64_t size) {
  if (!file.path() || !file.inode().IsRegular()) return Err(EINVAL);
  AttributeChange change = TRY(TruncateChange(creds, file.inode(), size));
  TRY(file.SetAttributes(change));
  NoteDentry(*file.path().dentry, EventsOf(change));
  return {};
}

Result<> Utimes(const Walker& walker, const Path& path, TimeChange atime, TimeChange mtime) {
  using Kind = TimeChange::Kind;
  if (atime.kind == Kind::kOmit && mtime.kind == Kind::kOmit) return {};
  TRY(CheckWritableMount(path));
  Attributes attrs = TRY(path.inode().GetAttributes());
  if (!IsOwnerOrCapable(walker.creds, attrs)) {
    // Both to the present: whoever may write may do that.
    if (atime.kind != Kind::kNow || mtime.kind != Kind::kNow) return Err(EPERM);
    TRY(path.inode().CheckPermission(walker.creds, W_OK));
  }
  const clock::Nanoseconds now = clock::Realtime();
  AttributeChange change;
  if (atime.kind != Kind::kOmit) change.atime = atime.kind == Kind::kNow ? now : atime.value;
  if (mtime.kind != Kind::kOmit) change.mtime = mtime.kind == Kind::kNow ? now : mtime.value;
  return SetAttributes(path, change);
}

}  // namespace redoubt::vfs
