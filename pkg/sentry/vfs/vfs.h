// The path walker, mounts and every operation that takes a path: mounts, symlinks, permissions, trailing slashes,
// openat2's RESOLVE_ flags in one place. Linux's fs/namei.c and fs/namespace.c.
//
// Lock order:
//   the rename lock (fiber::Mutex; renames between directories)
//     directories' locks (fiber::Mutex, Dentry::dir_lock: an ancestor before a descendant, otherwise by address)
//       file systems' own fiber locks (FileDescription::offset_lock comes before those)
//         kMountNamespace (Mount::Tree) > kDentryTree > kDentryChildren > kDentryCache
//         kInode and below inside file systems
#ifndef REDOUBT_PKG_SENTRY_VFS_VFS_H_
#define REDOUBT_PKG_SENTRY_VFS_VFS_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::vfs {

// Who walks: the task's root and credentials. Borrowed for the call.
struct Walker {
  const auth::Credentials& creds;
  const Path& root;
  uint32_t umask = 022;
};

// One *at() argument pair: where to start and the name. An empty name is ENOENT unless `empty_ok` (AT_EMPTY_PATH).
struct At {
  const Path& start;
  std::string_view name;
  bool follow = true;  // the last component, if a symlink
  bool empty_ok = false;
  uint64_t resolve = 0;  // RESOLVE_* of openat2(2)
};

struct MountInfo;

// The file-system tree of a mount namespace. Thread-safe.
class MountNamespace final : public RefCounted {
 public:
  // A tree of one file system.
  static RefPtr<MountNamespace> Create(RefPtr<Filesystem> root, uint64_t ms_flags, std::string source);
  // A copy of all mounts (CLONE_NEWNS); `translate` gets the copy's place for a place in this one.
  // ENOSPC: too many mounts.
  Result<RefPtr<MountNamespace>> Copy(std::vector<Path*> translate);
  Path root();
  // Counted by tasks; the last to leave unmounts everything.
  void AddUser();
  void DropUser();

  Result<> MountAt(const Walker&, const At& target, RefPtr<Filesystem> fs, uint64_t ms_flags, std::string source);
  Result<> BindAt(const Walker&, const At& source, const At& target, bool recursive);
  Result<> RemountAt(const Walker&, const At& target, uint64_t ms_flags);
  Result<> MoveAt(const Walker&, const At& source, const At& target);
  Result<> UmountAt(const Walker&, const At& target, int flags);
  Result<> PivotRoot(const Walker&, const At& new_root, const At& put_old);
  // For /proc/PID/mounts and mountinfo, parents first; paths relative to `root`, unreachable ones left out.
  std::vector<MountInfo> Mounts(const Path& root);

 private:
  explicit MountNamespace(RefPtr<Mount> root);
  ~MountNamespace() override;
  Result<Path> LookupMountPoint(const Walker&, const At& target);
  Result<> Attach(RefPtr<Mount> mount, Path at);
  void UnmountAll();

  std::atomic<int> users_{0};
  // Guarded by Mount::Tree(). Null after the last user has left.
  RefPtr<Mount> root_;
};

struct MountInfo {
  uint64_t id = 0, parent_id = 0, dev = 0;
  std::string root;         // of the mount within its file system
  std::string mount_point;  // not escaped
  uint64_t ms_flags = 0;
  std::string type, source, options;
};

struct OpenOptions {
  int flags = 0;
  uint32_t mode = 0;
  uint64_t resolve = 0;
};

Result<Path> Lookup(const Walker&, const At&);
Result<RefPtr<FileDescription>> Open(const Walker&, const At&, const OpenOptions&);
// Opens a place already found (open of /proc/self/fd/N, exec): permissions are checked by `creds`.
Result<RefPtr<FileDescription>> OpenPath(const Walker&, const Path&, const OpenOptions&);
Result<> Mkdir(const Walker&, const At&, uint32_t mode);
Result<> Mknod(const Walker&, const At&, uint32_t mode, uint64_t rdev);  // regular, FIFO, socket or device
Result<> Symlink(const Walker&, std::string_view target, const At&);
Result<> Link(const Walker&, const At& existing, const At& created);
Result<> Unlink(const Walker&, const At&);
Result<> Rmdir(const Walker&, const At&);
Result<> Rename(const Walker&, const At& from, const At& to, uint32_t flags);
Result<std::string> Readlink(const Walker&, const At&);
Result<Attributes> Stat(const Walker&, const At&);
// access(2) with `creds` as they are (the caller has swapped real for effective IDs).
Result<> Access(const Walker&, const At&, int may);
// chmod, chown, truncate, utimensat: the rules of those calls, then Inode::SetAttributes.
struct TimeChange {
  enum class Kind { kOmit, kNow, kSet } kind = Kind::kOmit;
  clock::Nanoseconds value = 0;
};
Result<> Chmod(const Walker&, const Path&, uint32_t mode);
Result<> Chown(const Walker&, const Path&, int64_t uid, int64_t gid);  // -1: leave
Result<> Truncate(const Walker&, const Path&, uint64_t size);
Result<> Utimes(const Walker&, const Path&, TimeChange atime, TimeChange mtime);
// On an open description: permission was checked at open; clears set-ID bits as Linux does.
Result<> FTruncate(const auth::Credentials&, FileDescription&, uint64_t size);
Result<struct statfs> Statfs(const Path&);
Result<std::string> GetXattr(const Walker&, const Path&, std::string_view name);
Result<> SetXattr(const Walker&, const Path&, std::string_view name, std::string_view value, int flags);
Result<> RemoveXattr(const Walker&, const Path&, std::string_view name);
Result<std::vector<std::string>> ListXattr(const Walker&, const Path&);

// The absolute name of a place as seen from `root`: getcwd(2), /proc/PID/fd. ENOENT if deleted (`name` then has "
// (deleted)" when asked through PathName), and "(unreachable)" before it if not below root.
struct NamedPath {
  std::string name;
  bool deleted = false;
  bool reachable = true;
};
NamedPath PathName(const Path& root, const Path& path);
// MS_* of the mount that `path` is on (noexec, nosuid, ...).
uint64_t MountFlags(const Path& path);
// Whether a read of `path` by a description of `open_flags` moves its access time: O_NOATIME, MS_NOATIME,
// MS_NODIRATIME, and the rule of MS_RELATIME (the default).
bool ShouldUpdateAtime(const Path& path, int open_flags, const Attributes& attrs, clock::Nanoseconds now);
// Whether a file may be opened for execution: regular, x permission, no MS_NOEXEC. EACCES.
Result<> CheckExecutable(const Walker&, const Path&);
// May `path` be written at all: EROFS for a read-only mount or file system.
Result<> CheckWritableMount(const Path& path);

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_VFS_H_
