// Who watches files, and what they are told: the VFS' side of inotify(7), Linux's fsnotify. While nobody watches
// anything, a hook costs one load.
#ifndef REDOUBT_PKG_SENTRY_VFS_WATCH_H_
#define REDOUBT_PKG_SENTRY_VFS_WATCH_H_

#include <sys/inotify.h>

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"
#include "pkg/sync/mutex.h"

namespace redoubt::vfs {

class FileDescription;

// What happened to a watched file, or to an entry of a watched directory.
struct FileEvent {
  uint32_t mask = 0;      // IN_*: what, and IN_ISDIR
  std::string_view name;  // of the entry; empty: the file itself
  uint32_t cookie = 0;    // of a rename
  bool nameless = false;  // it happened through a descriptor of a file whose name has gone (IN_EXCL_UNLINK)
};

// Somebody's interest in one inode, Linux's fsnotify_mark. Keeps the inode for as long as it is in the inode's list,
// and while the name by which it was found is there, its dentry, so that the place stays that inode; not the mount,
// which can be unmounted.
class Watch : public RefCounted {
 public:
  // `owner` is only compared: an inode has one watch of each.
  Watch(const Path& path, const void* owner);
  ~Watch() override;

  Inode& inode() const { return *inode_; }
  const void* owner() const { return owner_; }

 protected:
  enum class After { kStay, kRemove };

 private:
  friend class WatchList;

  // Called with the inode's list locked: short, and only ranks above kWatches.
  virtual After OnEvent(const FileEvent& event) = 0;
  // It has left the list, once, and hears nothing any more.
  virtual void OnRemoved() = 0;

  const void* const owner_;
  // Declared in this order so that the inode goes before its file system.
  const RefPtr<Filesystem> fs_;
  const RefPtr<Inode> inode_;
  RefPtr<Dentry> dentry_;  // guarded by the list's lock
};

// The watches of one inode, made at the first and kept with it. Thread-safe.
class WatchList final {
 public:
  // All watches of all inodes together (Linux: none, but of each user).
  static constexpr int64_t kMost = 1 << 20;

  // ENOSPC. In a fiber: may ask the file system.
  static Result<> Add(RefPtr<Watch> watch);
  // False if it has left its list before.
  static bool Remove(Watch& watch);
  // Null if `owner` has none there.
  static RefPtr<Watch> Find(Inode& inode, const void* owner);

  void Tell(const FileEvent& event) EXCLUDES(mu_);
  // `dentry`, by which the inode was known, is deleted; `last_name`: the inode has no other.
  void NameGone(const Dentry& dentry, bool last_name) EXCLUDES(mu_);
  // It has a name again (linkat(2) of a file of O_TMPFILE).
  void NameMade() EXCLUDES(mu_);
  // A deleted dentry of the inode's is used no more: with the last name gone that is the end of the watches.
  void NameReleased() EXCLUDES(mu_);
  // The file system has no mount left.
  static void Unmounted(const Filesystem& fs);

 private:
  using Watches = std::vector<RefPtr<Watch>>;

  // Takes one out. The caller drops what it gets without the lock: it may be the last that holds the inode.
  RefPtr<Watch> RemoveLocked(Watches::iterator it) REQUIRES(mu_);
  // Tells all, and they leave.
  void End(uint32_t mask) EXCLUDES(mu_);

  sync::Mutex mu_{sync::Rank::kWatches};
  Watches watches_ GUARDED_BY(mu_);
  bool last_name_gone_ GUARDED_BY(mu_) = false;
};

namespace watch_internal {
extern constinit std::atomic<int64_t> count;  // of all watches
void TellAt(const Dentry& dentry, uint32_t mask, bool nameless);
void TellFile(const FileDescription& file, uint32_t mask);
void TellInode(Inode& inode, uint32_t mask);
void TellEntry(const Dentry& dir, std::string_view name, uint32_t mask, uint32_t cookie);
}  // namespace watch_internal

// Whether there is any watch at all.
inline bool AnyWatches() { return watch_internal::count.load(std::memory_order_relaxed) != 0; }

// The hooks. `mask` is of IN_*; IN_ISDIR is added where it is due.

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
inline void NoteInode(Inode& inode, uint32_t mask) {
  if (AnyWatches()) [[unlikely]]
    watch_internal::TellInode(inode, mask);
}
// Only those of the directory hear: IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, with IN_ISDIR from the caller.
inline void NoteEntry(const Dentry& dir, std::string_view name, uint32_t mask, uint32_t cookie = 0) {
  if (AnyWatches()) [[unlikely]]
    watch_internal::TellEntry(dir, name, mask, cookie);
}
// What the two events of one rename have in common.
uint32_t NewRenameCookie();

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_WATCH_H_
