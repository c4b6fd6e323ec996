// Who watches files, and what they are told: the VFS' side of inotify(7), Linux's fsnotify. While nobody watches
// anything, a hook costs one load; of a file that is not watched, otherwise, a few.
#ifndef REDOUBT_PKG_SENTRY_VFS_WATCH_H_
#define REDOUBT_PKG_SENTRY_VFS_WATCH_H_

#include <sys/inotify.h>

#include <atomic>
#include <cstdint>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"

namespace redoubt::vfs {

class FileDescription;

// What happened to a watched file, or to an entry of a watched directory.
struct FileEvent {
  uint32_t mask = 0;      // IN_*: what, and IN_ISDIR
  std::string_view name;  // of the entry; empty: the file itself
  uint32_t cookie = 0;    // of a rename
  bool nameless = false;  // it happened through a descriptor of a file whose name has gone (IN_EXCL_UNLINK)
};

// Somebody's interest in one inode, Linux's fsnotify_mark. Keeps the inode, and while the name by which it was found is
// there, its dentry, so that the place stays that inode; not the mount, which can be unmounted.
class Watch : public RefCounted {
 public:
  // `owner` is only compared: an inode has at most one watch of each.
  Watch(const Path& path, const void* owner);
  ~Watch() override;

  Inode& inode() const { return *inode_; }
  const void* owner() const { return owner_; }

 protected:
  enum class After { kStay, kRemove };

 private:
  friend class Watches;
  friend struct WatchBucket;

  // Called with a lock of rank kWatches held: short.
  virtual After OnEvent(const FileEvent& event) = 0;
  // It has been removed and hears nothing any more. Once.
  virtual void OnRemoved() = 0;

  const void* const owner_;
  // Declared in this order so that the inode goes before its file system.
  const RefPtr<Filesystem> fs_;
  const RefPtr<Inode> inode_;
  RefPtr<Dentry> dentry_;  // guarded by the same lock
};

// All watches, by inode: inodes know nothing of them, so that one which nobody watches is no larger. Thread-safe.
class Watches final {
 public:
  // All together (Linux: none, but of each user).
  static constexpr int64_t kMost = 1 << 20;

  // ENOSPC. May ask the file system.
  static Result<> Add(RefPtr<Watch> watch);
  // False if it has gone before.
  static bool Remove(Watch& watch);
  // Null if `owner` has none there.
  static RefPtr<Watch> Find(const Inode& inode, const void* owner);

  static void Tell(const Inode& inode, const FileEvent& event);
  // Dentries tell when they have been marked deleted: watches let go of them. May ask the file system.
  static void NameGone(const Dentry& dentry);
  // The inode has a name again (linkat(2) of a file of O_TMPFILE).
  static void NameMade(const Inode& inode);
  // A deleted dentry is used no more: if it was of the inode's last name, that is the end of its watches.
  static void NameReleased(const Inode& inode);
  // The file system has no mount left.
  static void Unmounted(const Filesystem& fs);
};

namespace watch_internal {
extern constinit std::atomic<int64_t> count;  // of all watches
void TellAt(const Dentry& dentry, uint32_t mask, bool nameless);
void TellFile(const FileDescription& file, uint32_t mask);
void TellInode(const Inode& inode, uint32_t mask);
}  // namespace watch_internal

// Whether there is any watch at all.
inline bool AnyWatches() { return watch_internal::count.load(std::memory_order_relaxed) != 0; }

// The hooks. `mask` is of IN_*.

// Something was done through `file`: the directory that its name is in hears of it, then the file's own watches.
inline void NoteFile(const FileDescription& file, uint32_t mask) {
  if (AnyWatches()) [[unlikely]]
    watch_internal::TellFile(file, mask);
}
// The same of something done to the file of that name.
inline void NoteDentry(const Dentry& dentry, uint32_t mask) {
  if (AnyWatches()) [[unlikely]]
    watch_internal::TellAt(dentry, mask, false);
}
// Only the file's own watches hear.
inline void NoteInode(const Inode& inode, uint32_t mask) {
  if (AnyWatches()) [[unlikely]]
    watch_internal::TellInode(inode, mask);
}
// Only those of the directory hear: IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, with IN_ISDIR from the caller.
inline void NoteEntry(const Inode& dir, std::string_view name, uint32_t mask, uint32_t cookie = 0) {
  if (AnyWatches()) [[unlikely]]
    Watches::Tell(dir, {.mask = mask, .name = name, .cookie = cookie});
}
// What the two events of one rename have in common.
uint32_t NewRenameCookie();

// A flag for Inode::Open besides open(2)'s (Linux's FMODE_NONOTIFY): another description stands before the one that is
// opened, and is what programs have open, so the end of this one is no event.
inline constexpr int kOpenUntold = 0x4000000;

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_WATCH_H_
