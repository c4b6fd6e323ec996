#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <utility>

#include "pkg/sentry/vfs/namei.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

namespace {

// The kernel's O_LARGEFILE, which open(2) always sets for 64-bit programs; the C library's is 0.
constexpr int kLargeFile = 0100000;
constexpr int kTmpfileBit = O_TMPFILE & ~O_DIRECTORY;

// O_PATH: only a place. All operations fail with EBADF.
class PathDescription final : public FileDescription {
 public:
  PathDescription(Path path, int flags) : FileDescription(std::move(path), flags) {}

  Result<> SetStatusFlags(int flags) override { return Err(EBADF); }
  Result<size_t> Read(IoSequence&, IoFlags) override { return Err(EBADF); }
  Result<size_t> Write(IoSequence&, IoFlags) override { return Err(EBADF); }
  Result<size_t> PRead(IoSequence&, uint64_t, IoFlags) override { return Err(EBADF); }
  Result<size_t> PWrite(IoSequence&, uint64_t, IoFlags) override { return Err(EBADF); }
  Result<uint64_t> Seek(int64_t, int) override { return Err(EBADF); }
  Result<> Getdents(DirentSink&) override { return Err(EBADF); }
  Result<> SetAttributes(const AttributeChange&) override { return Err(EBADF); }
  Result<> Sync(bool) override { return Err(EBADF); }
  Result<> Allocate(int, uint64_t, uint64_t) override { return Err(EBADF); }
  Result<uint64_t> Ioctl(MemoryIo&, uint32_t, uint64_t) override { return Err(EBADF); }
  Result<> ConfigureMMap(mm::MMapOptions&) override { return Err(EBADF); }
};

int AccessOf(int flags) {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return R_OK;
    case O_WRONLY:
      return W_OK;
    default:
      return R_OK | W_OK;
  }
}

Result<int> CheckFlags(int flags) {
  if (flags & O_PATH) return flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (flags & kTmpfileBit) {
    if ((flags & O_DIRECTORY) == 0 || (flags & O_ACCMODE) == O_RDONLY || (flags & O_CREAT)) return Err(EINVAL);
  } else if ((flags & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY)) {
    return Err(EINVAL);
  }
  return flags | kLargeFile;
}

enum class Created { kNo, kYes };

// What do_open and may_open do with the place found.
Result<RefPtr<FileDescription>> OpenFound(const Walker& walker, const Path& path, int flags, Created created) {
  Inode& inode = path.inode();
  const int type = static_cast<int>(inode.type());
  if ((flags & O_DIRECTORY) && (flags & kTmpfileBit) == 0 && !inode.IsDirectory()) return Err(ENOTDIR);
  if (flags & O_PATH) return RefPtr<FileDescription>(MakeRef<PathDescription>(path, flags));
  if (type == S_IFLNK) return Err(ELOOP);
  int access = AccessOf(flags);
  if (created == Created::kNo) {
    if (type == S_IFDIR && ((access & W_OK) || (flags & (O_CREAT | O_TRUNC)))) return Err(EISDIR);
    if ((type == S_IFCHR || type == S_IFBLK) && (path.mount->flags() & MS_NODEV)) return Err(EACCES);
    if (flags & O_TRUNC) access |= W_OK;
    TRY(inode.CheckPermission(walker.creds, access));
    if ((access & W_OK) && type == S_IFREG) TRY(CheckWritableMount(path));
    if (flags & O_NOATIME) {
      Attributes attrs = TRY(inode.GetAttributes());
      if (!IsOwnerOrCapable(walker.creds, attrs)) return Err(EPERM);
    }
  }
  if (type == S_IFSOCK) return Err(ENXIO);
  // O_TRUNC is passed on as a hint only: what is truncated need not be copied up first.
  int open_flags = flags & ~(O_CREAT | O_EXCL);
  if (type != S_IFREG || created == Created::kYes) open_flags &= ~O_TRUNC;
  RefPtr<FileDescription> file = TRY(inode.Open(path, open_flags));
  NoteFile(*file, IN_OPEN);
  if ((flags & O_TRUNC) && type == S_IFREG && created == Created::kNo) {
    TRY(FTruncate(walker.creds, *file, 0));
  }
  return file;
}

Result<RefPtr<FileDescription>> OpenTmpfile(const Walker& walker, const At& at, const OpenOptions& options, int flags) {
  Path dir = TRY(Lookup(walker, at));
  if (!dir.inode().IsDirectory()) return Err(ENOTDIR);
  TRY(CheckWritableMount(dir));
  TRY(CheckMayCreate(walker.creds, *dir.dentry));
  NewInode n = TRY(PrepareNewInode(walker, dir.inode(), S_IFREG | (options.mode & 07777), 0));
  RefPtr<Inode> inode = TRY(dir.inode().Tmpfile(n));
  Path path(dir.mount, Dentry::MakeUnnamed(dir.dentry, std::move(inode)));
  RefPtr<FileDescription> file = TRY(path.inode().Open(path, flags & ~O_EXCL));
  NoteFile(*file, IN_OPEN);
  return file;
}

// One try with O_CREAT: null if the walk must go on (a symbolic link was followed).
Result<RefPtr<FileDescription>> CreateOrOpenLast(const Walker& walker, PathWalk& walk, const OpenOptions& options,
                                                 int flags, bool follow) {
  if (walk.last_type() != PathWalk::LastType::kNormal) {
    if (walk.last_type() == PathWalk::LastType::kNone && !walk.path().inode().IsDirectory()) {
      // A magic link led to a file.
      if (walk.trailing_slash()) return Err(ENOTDIR);
      return OpenFound(walker, walk.path(), flags, Created::kNo);
    }
    return Err(flags & O_EXCL ? EEXIST : EISDIR);
  }
  if (walk.trailing_slash()) return Err(EISDIR);
  Path last = TRY(walk.Last());
  if (last.dentry->negative()) {
    Dentry& dir = *walk.path().dentry;
    fiber::MutexLock lock(dir.dir_lock());
    last.dentry = TRY(dir.LookupLocked(walk.last()));
    if (last.dentry->negative()) {
      TRY(CheckWritableMount(walk.path()));
      TRY(CheckMayCreate(walker.creds, dir));
      NewInode n = TRY(PrepareNewInode(walker, dir.inode(), S_IFREG | (options.mode & 07777), 0));
      n.opened_next = true;
      Result<RefPtr<Inode>> inode = dir.inode().Create(walk.last(), n);
      if (inode) {
        last.dentry = dir.Insert(walk.last(), *std::move(inode));
        NoteEntry(dir.inode(), walk.last(), IN_CREATE);
        // A regular file's open does not wait for anyone else's; with the directory locked nobody can come between.
        return OpenFound(walker, last, flags, Created::kYes);
      }
      // Somebody outside was faster.
      if (inode.error() != Errno(EEXIST)) return Err(inode.error());
      last.dentry = TRY(dir.LookupLocked(walk.last(), Dentry::Believe::kNotCached));
      if (last.dentry->negative()) return Err(EEXIST);
    }
  }
  if (flags & O_EXCL) return Err(EEXIST);
  FollowMounts(last);
  if (last.inode().IsSymlink()) {
    if (!follow) return Err(ELOOP);
    TRY(walk.Follow(last));
    return RefPtr<FileDescription>();
  }
  return OpenFound(walker, last, flags, Created::kNo);
}

}  // namespace

Result<RefPtr<FileDescription>> Open(const Walker& walker, const At& at, const OpenOptions& options) {
  const int flags = TRY(CheckFlags(options.flags));
  const bool follow = (flags & O_NOFOLLOW) == 0 && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
  At where{.start = at.start,
           .name = at.name,
           .follow = follow,
           .empty_ok = at.empty_ok,
           .resolve = at.resolve | options.resolve};
  if (flags & kTmpfileBit && (flags & O_PATH) == 0) return OpenTmpfile(walker, where, options, flags);
  if ((flags & O_CREAT) == 0) {
    Path path = TRY(Lookup(walker, where));
    return OpenFound(walker, path, flags, Created::kNo);
  }
  PathWalk walk(walker, where);
  TRY(walk.ToParent());
  while (true) {
    RefPtr<FileDescription> file = TRY(CreateOrOpenLast(walker, walk, options, flags, follow));
    if (file) return file;
  }
}

Result<RefPtr<FileDescription>> OpenPath(const Walker& walker, const Path& path, const OpenOptions& options) {
  const int flags = TRY(CheckFlags(options.flags));
  return OpenFound(walker, path, flags & ~kTmpfileBit, Created::kNo);
}

}  // namespace redoubt::vfs
