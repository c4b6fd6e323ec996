// One file system, or a part of one, at one place of a tree. Linux's struct mount.
#ifndef REDOUBT_PKG_SENTRY_VFS_MOUNT_H_
#define REDOUBT_PKG_SENTRY_VFS_MOUNT_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"
#include "pkg/sync/mutex.h"

namespace redoubt::vfs {

// Attached to a place in a parent mount, or a namespace's root, or detached (unmounted but in use, or internal). A
// parent and its child hold each other until the child is detached. Tree() guards all attachments of all namespaces
// (Linux's mount_lock).
class Mount final : public RefCounted {
 public:
  // Of the whole file system, or from `root` on.
  Mount(RefPtr<Filesystem> fs, RefPtr<Dentry> root, uint64_t ms_flags, std::string source);
  static RefPtr<Mount> Create(RefPtr<Filesystem> fs, uint64_t ms_flags, std::string source);
  // A detached mount of the same thing, from `root` on.
  RefPtr<Mount> Clone(RefPtr<Dentry> root) const;

  Filesystem& filesystem() const { return *fs_; }
  const RefPtr<Dentry>& root() const { return root_; }
  uint64_t id() const { return id_; }
  const std::string& source() const { return source_; }
  // MS_* of mount(2).
  uint64_t flags() const { return flags_.load(std::memory_order_relaxed); }
  void set_flags(uint64_t flags) { flags_.store(flags, std::memory_order_relaxed); }

  // Regular files open for writing through it: while there are any it cannot become read-only.
  void AddWriter() { writers_.fetch_add(1, std::memory_order_relaxed); }
  void DropWriter() { writers_.fetch_sub(1, std::memory_order_relaxed); }
  bool HasWriters() const { return writers_.load(std::memory_order_relaxed) > 0; }

  // ENOSPC if `more` of them would be too many (proc(5), mount-max); here of all namespaces together.
  static Result<> CheckRoom(size_t more);

  static sync::Mutex& Tree();
  RefPtr<Mount> parent() const EXCLUDES(Tree());
  // Where it is attached: false if nowhere.
  bool Up(Path* out) const EXCLUDES(Tree());

  // --- with Tree() held
  const RefPtr<Mount>& ParentLocked() const { return parent_; }
  const RefPtr<Dentry>& MountPointLocked() const { return mountpoint_; }
  Mount* ChildAtLocked(const Dentry& dentry) const;
  std::vector<Mount*> ChildrenLocked() const;  // in the order of their making
  bool HasChildrenLocked() const { return !children_.empty(); }
  void AttachLocked(RefPtr<Mount> child, RefPtr<Dentry> at);
  // What held the mount in its place: to be dropped without the lock, since each may be the last reference.
  struct Detached {
    RefPtr<Mount> mount, parent;
    RefPtr<Dentry> at;
  };
  [[nodiscard]] Detached DetachLocked();
  bool IsAncestorOfLocked(const Mount& other) const;

 private:
  ~Mount() override;

  const uint64_t id_;
  const RefPtr<Filesystem> fs_;
  const RefPtr<Dentry> root_;
  const std::string source_;
  std::atomic<uint64_t> flags_;
  std::atomic<int64_t> writers_{0};
  // Guarded by Tree().
  RefPtr<Mount> parent_;
  RefPtr<Dentry> mountpoint_;
  std::unordered_map<const Dentry*, RefPtr<Mount>> children_;
};

// Steps onto whatever is mounted on `path`, to the topmost.
void FollowMounts(Path& path);
// The same with Mount::Tree() held.
void FollowMountsLocked(Path& path);

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_MOUNT_H_
