// What a file system implements: Inode and Filesystem. The VFS does the rest (walking, permissions, the dentry cache,
// mounts), so an implementation holds only what is particular to it. Linux's struct inode, inode_operations,
// super_block.
#ifndef REDOUBT_PKG_SENTRY_VFS_INODE_H_
#define REDOUBT_PKG_SENTRY_VFS_INODE_H_

#include <sys/stat.h>
#include <sys/vfs.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/time/clock.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::vfs {

class Dentry;
class FileDescription;
class FileLocks;
class Filesystem;
class Inode;

// stat(2)'s fields.
struct Attributes {
  uint32_t mode = 0;  // type and permissions
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 1;
  uint64_t ino = 0;
  uint64_t dev = 0;     // makedev() of the file system
  uint64_t rdev = 0;    // of a device node
  uint64_t size = 0;    // bytes
  uint64_t blocks = 0;  // of 512 bytes
  uint32_t blksize = 4096;
  clock::Nanoseconds atime = 0, mtime = 0, ctime = 0, btime = 0;
};

// What to change (chmod, chown, truncate, utimensat). The VFS has checked permissions and computed final values
// (S_ISUID clearing, "now"); the file system applies all or fails with nothing changed.
struct AttributeChange {
  std::optional<uint32_t> mode;  // permission bits, 07777
  std::optional<uint32_t> uid, gid;
  std::optional<uint64_t> size;
  std::optional<clock::Nanoseconds> atime, mtime;
};

// Who creates, with what: ownership of a new inode (the VFS has applied umask and set-group-ID directories).
struct NewInode {
  uint32_t mode = 0;  // type and permissions
  uint32_t uid = 0, gid = 0;
  uint64_t rdev = 0;
  bool opened_next = false;  // open(2) made it, and Open follows
};

enum class LookupCache {
  kCached,    // the dentry cache may answer for this directory's children, positive and negative
  kTimed,     // so it may, for Inode::lookup_lifetime after Lookup last did (others change the tree as well)
  kUncached,  // ask Lookup every time (procfs: what exists changes by itself)
};

// One file, directory, ... of a file system. Names live in dentries. Calls that change a directory, and Lookup, come
// with that directory's lock held by the VFS (a fiber lock: they may block). All calls may come from several threads at
// once otherwise. The defaults fail as Linux does where a file system lacks the operation.
class Inode : public RefCounted {
 public:
  explicit Inode(Filesystem& fs) : fs_(fs) {}
  ~Inode() override;

  Filesystem& filesystem() const { return fs_; }
  // S_IFMT bits; never change.
  virtual uint32_t type() const = 0;
  bool IsDirectory() const { return type() == S_IFDIR; }
  bool IsSymlink() const { return type() == S_IFLNK; }
  bool IsRegular() const { return type() == S_IFREG; }

  virtual Result<Attributes> GetAttributes() = 0;
  virtual Result<> SetAttributes(const AttributeChange& change) { return Err(EPERM); }
  // Default: the mode, owner and capabilities rules of path_resolution(7), by GetAttributes. `may` is of R_OK, W_OK,
  // X_OK.
  virtual Result<> CheckPermission(const auth::Credentials& creds, int may);

  // Directories. Names are single components, not "." or "..", at most NAME_MAX.
  virtual LookupCache lookup_cache() const { return LookupCache::kCached; }
  virtual fiber::Time lookup_lifetime() const { return 0; }
  virtual Result<RefPtr<Inode>> Lookup(std::string_view name) { return Err(ENOTDIR); }
  // The same where `known` was found last time, which may be cheaper to confirm.
  virtual Result<RefPtr<Inode>> LookupAgain(std::string_view name, Inode& known) { return Lookup(name); }
  // Regular files, FIFOs, sockets, devices (by new_inode.mode).
  virtual Result<RefPtr<Inode>> Create(std::string_view name, const NewInode& new_inode) { return Err(EROFS); }
  virtual Result<RefPtr<Inode>> Mkdir(std::string_view name, const NewInode& new_inode) { return Err(EROFS); }
  virtual Result<RefPtr<Inode>> Symlink(std::string_view name, std::string_view target, const NewInode& new_inode) {
    return Err(EROFS);
  }
  virtual Result<> Link(std::string_view name, Inode& target) { return Err(EPERM); }
  virtual Result<> Unlink(std::string_view name, Inode& child) { return Err(EROFS); }
  virtual Result<> Rmdir(std::string_view name, Inode& child) { return Err(EROFS); }
  // Both directories are of this file system and locked; `replaced` is null or what stood at new_name (with
  // RENAME_EXCHANGE: the other one). The VFS has checked types and permissions; emptiness of a replaced directory is
  // the file system's to check (ENOTEMPTY).
  virtual Result<> Rename(std::string_view old_name, Inode& child, Inode& new_parent, std::string_view new_name,
                          Inode* replaced, uint32_t flags) {
    return Err(EROFS);
  }
  // An unnamed regular file (O_TMPFILE).
  virtual Result<RefPtr<Inode>> Tmpfile(const NewInode& new_inode) { return Err(EOPNOTSUPP); }

  // Symbolic links. A magic link (/proc/PID/fd/N, exe, cwd, root) resolves to a place instead of a text.
  virtual Result<std::string> Readlink() { return Err(EINVAL); }
  virtual bool IsMagicLink() const { return false; }
  virtual Result<Path> FollowMagicLink() { return Err(ENOSYS); }

  // A new open file. `flags` are open(2)'s; O_CREAT, O_EXCL, O_TRUNC, O_NOFOLLOW, O_DIRECTORY, permissions and O_PATH
  // have been dealt with by the VFS (O_TRUNC is left in for regular files that will be truncated, as a hint). May block
  // the fiber interruptibly (FIFOs).
  virtual Result<RefPtr<FileDescription>> Open(const Path& path, int flags) = 0;

  // xattr(7). Values of at most 64 KiB.
  virtual Result<std::string> GetXattr(std::string_view name) { return Err(EOPNOTSUPP); }
  virtual Result<> SetXattr(std::string_view name, std::string_view value, int flags) { return Err(EOPNOTSUPP); }
  virtual Result<> RemoveXattr(std::string_view name) { return Err(EOPNOTSUPP); }
  virtual Result<std::vector<std::string>> ListXattr() { return std::vector<std::string>{}; }

  // flock(2) and fcntl(2) locks of this file (locks.h); made at the first use.
  FileLocks& locks();
  // Null if there never was a lock.
  FileLocks* locks_if_any() const { return locks_.load(std::memory_order_acquire); }

  // What a socket node (S_IFSOCK) is bound to: an object of the AF_UNIX implementation. File systems that can hold such
  // nodes keep it for the inode's lifetime; ECONNREFUSED where there is none.
  virtual Result<RefPtr<RefCounted>> bound_socket() { return Err(ECONNREFUSED); }
  virtual Result<> set_bound_socket(RefPtr<RefCounted> socket) { return Err(EOPNOTSUPP); }
  // The pipe behind a FIFO node, made by SpecialNodeHooks::open_fifo; same rules.
  virtual RefPtr<RefCounted>* fifo_slot() { return nullptr; }

 private:
  std::atomic<FileLocks*> locks_{nullptr};
  Filesystem& fs_;  // inodes hold their file system alive through their dentry's mount
};

// The mode, owner and capabilities rules of path_resolution(7) for a file of these attributes. EACCES.
Result<> CheckModePermission(const Attributes& attrs, const auth::Credentials& creds, int may);

// A mounted (or mountable) file system. Linux's struct super_block.
class Filesystem : public RefCounted {
 public:
  // As /proc/filesystems and /proc/mounts name it. Static storage.
  virtual std::string_view type_name() const = 0;
  virtual RefPtr<Inode> root() = 0;
  virtual Result<struct statfs> Statfs() = 0;
  virtual Result<> Sync() { return {}; }
  // Options for /proc/mounts beyond the mount's own flags, comma-separated, without a leading comma.
  virtual std::string MountOptions() const { return {}; }
  // The last mount has gone.
  virtual void Unmounted() {}

  // st_dev: an anonymous device number (major 0), unique per file system.
  uint64_t dev() const { return dev_; }

 protected:
  Filesystem();
  ~Filesystem() override;

 private:
  friend class Mount;
  const uint64_t dev_;
  // Mount's: how many there are, and the dentry that all of them share while there is one.
  int mounts_ = 0;
  RefPtr<Dentry> root_dentry_;
};

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_INODE_H_
