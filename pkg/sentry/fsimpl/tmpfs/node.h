// What all tmpfs inodes share: owner, mode, times, link count, extended attributes. Private to tmpfs.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_NODE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_NODE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/sentry/fsimpl/tmpfs/filesystem.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::tmpfs {

// Kept alive by the directory entries that name it and by dentries. mu_ guards the attributes only; a kind of node with
// contents has a lock of its own for them.
class Node : public vfs::Inode {
 public:
  uint32_t type() const final { return type_; }
  Result<vfs::Attributes> GetAttributes() final;
  Result<> SetAttributes(const vfs::AttributeChange& change) override;
  Result<std::string> GetXattr(std::string_view name) override;
  Result<> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<> RemoveXattr(std::string_view name) override;
  Result<std::vector<std::string>> ListXattr() override;

  TmpfsFilesystem& fs() const { return fs_; }
  uint64_t ino() const { return ino_; }
  uint32_t nlink() const EXCLUDES(mu_);
  // Adds to the link count and sets the change time.
  void ChangeLinks(int delta) EXCLUDES(mu_);
  // A new name for a file without one, unless it never may have one (it was unlinked): ENOENT.
  Result<> AddLink() EXCLUDES(mu_);
  void AllowFirstLink() EXCLUDES(mu_);
  // Times set to now.
  void TouchModified() EXCLUDES(mu_);  // mtime and ctime
  void TouchChanged() EXCLUDES(mu_);   // ctime
  void TouchAccessed(const vfs::Path& path, int open_flags) EXCLUDES(mu_);
  // Contents were written by the current task: mtime and ctime, and set-ID bits go unless it may keep them.
  void Written() EXCLUDES(mu_);

 protected:
  Node(TmpfsFilesystem& fs, const vfs::NewInode& n, uint32_t nlink);
  ~Node() override;

  // st_size and st_blocks.
  struct Size {
    uint64_t size = 0;
    uint64_t blocks = 0;
  };
  virtual Size GetSize() const { return {}; }

 private:
  using Xattrs = std::map<std::string, std::string, std::less<>>;
  // All of one inode's.
  static constexpr size_t kMaxXattrBytes = 256 << 10;

  TmpfsFilesystem& fs_;
  const uint64_t ino_;
  const uint32_t type_;
  const uint64_t rdev_;
  mutable sync::Mutex mu_{sync::Rank::kInode};
  uint32_t mode_ GUARDED_BY(mu_);  // 07777
  uint32_t uid_ GUARDED_BY(mu_);
  uint32_t gid_ GUARDED_BY(mu_);
  uint32_t nlink_ GUARDED_BY(mu_);
  bool may_get_first_link_ GUARDED_BY(mu_) = false;
  clock::Nanoseconds atime_ GUARDED_BY(mu_);
  clock::Nanoseconds mtime_ GUARDED_BY(mu_);
  clock::Nanoseconds ctime_ GUARDED_BY(mu_);
  const clock::Nanoseconds btime_;
  size_t XattrBytesLocked() const REQUIRES(mu_);

  std::unique_ptr<Xattrs> xattrs_ GUARDED_BY(mu_);
};

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_NODE_H_
