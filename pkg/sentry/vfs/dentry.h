// Names in the tree and their cache. Linux's struct dentry.
#ifndef REDOUBT_PKG_SENTRY_VFS_DENTRY_H_
#define REDOUBT_PKG_SENTRY_VFS_DENTRY_H_

#include <atomic>
#include <boost/intrusive/list.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::vfs {

enum class DentryKind {
  kNamed,      // found below its parent
  kRoot,       // of a file system
  kAnonymous,  // a pipe, a socket, ...: in no tree, and its name is all there is to print
};

// One name in one directory, positive (it has an inode) or negative (known not to exist). A dentry never changes its
// inode: creating a file replaces a negative dentry by a new one. Kept alive by those who stand on it, by its children,
// and for a while by the dentry cache. A parent knows its living children, so a place has at most one dentry at a time.
//
// Locking: names and parents of all dentries are guarded by one short lock (kDentryTree), the set of a directory's
// children by its own (kDentryChildren). dir_lock() serializes the file system's view of one directory (Linux's
// i_rwsem): creation, removal, Lookup.
class Dentry final : public RefCounted {
 public:
  static RefPtr<Dentry> MakeRoot(RefPtr<Inode> inode);
  static RefPtr<Dentry> MakeAnonymous(RefPtr<Inode> inode, std::string name);
  // An O_TMPFILE file: below `parent` only for its printed name, born deleted.
  static RefPtr<Dentry> MakeUnnamed(RefPtr<Dentry> parent, RefPtr<Inode> inode);

  bool negative() const { return !inode_; }
  // Positive dentries only.
  Inode& inode() const { return *inode_; }
  const RefPtr<Inode>& inode_ref() const { return inode_; }
  DentryKind kind() const { return kind_; }
  // Removed by unlink, rmdir or rename, or never named.
  bool deleted() const { return deleted_.load(std::memory_order_acquire); }
  // Null for roots and anonymous dentries.
  RefPtr<Dentry> parent() const;
  std::string name() const;

  // Whether some mount, of any namespace, sits on this dentry.
  bool is_mountpoint() const { return mounts_here_.load(std::memory_order_acquire) > 0; }
  void AddMount() { mounts_here_.fetch_add(1, std::memory_order_acq_rel); }
  void RemoveMount() { mounts_here_.fetch_sub(1, std::memory_order_acq_rel); }

  // --- directories only
  fiber::Mutex& dir_lock() { return directory_->lock; }
  // The child, perhaps negative: from the cache without the directory's lock, otherwise from the file system under it.
  // ENAMETOOLONG, ENOENT for a deleted directory, or what Inode::Lookup says. `cached_only`: EAGAIN instead of asking.
  Result<RefPtr<Dentry>> Lookup(std::string_view name, bool cached_only = false);
  // The same with dir_lock() held. kNotCached: whatever is known, the file system is asked.
  enum class Believe { kCached, kNotCached };
  Result<RefPtr<Dentry>> LookupLocked(std::string_view name, Believe believe = Believe::kCached);
  // With dir_lock() held: `name` now is `inode` (created) or is not (null).
  RefPtr<Dentry> Insert(std::string_view name, RefPtr<Inode> inode);
  // With this directory's lock held: `child` has been removed from it.
  void Remove(Dentry& child);
  // With both directories' locks held.
  static void Move(Dentry& child, Dentry& new_parent, std::string_view new_name);
  static void Exchange(Dentry& a, Dentry& b);

  // Whether `this` is `other` or above it within the file system.
  bool IsAncestorOf(const Dentry& other) const;

  // Guards parent_ and name_ of every dentry; rank kDentryTree.
  static sync::Mutex& TreeLock();
  const RefPtr<Dentry>& ParentLocked() const { return parent_; }
  const std::string& NameLocked() const { return name_; }

 private:
  friend class DentryCache;
  struct StringHash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  using Children = std::unordered_map<std::string, Dentry*, StringHash, std::equal_to<>>;
  struct Directory {
    fiber::Mutex lock;
    sync::Mutex mu{sync::Rank::kDentryChildren};
    Children children GUARDED_BY(mu);  // living ones; a dying one may still be here, TryIncRef tells
  };

  Dentry(DentryKind kind, RefPtr<Dentry> parent, std::string name, RefPtr<Inode> inode, RefPtr<Filesystem> fs);
  ~Dentry() override;
  void OnZeroRefs() override;

  RefPtr<Dentry> FindChild(std::string_view name);
  bool caches_children() const { return inode_->lookup_cache() != LookupCache::kUncached; }
  // Whether `child`, found in the cache, may be believed; a place that somebody has mounted on stays what it is.
  bool IsFresh(const Dentry& child) const {
    switch (inode_->lookup_cache()) {
      case LookupCache::kCached:
        return true;
      case LookupCache::kTimed:
        return fiber::Now() < child.fresh_until_.load(std::memory_order_relaxed) || child.is_mountpoint();
      case LookupCache::kUncached:
        break;
    }
    return false;
  }
  // The file system has just said that `child` is what it is.
  void Confirm(Dentry& child) const {
    if (inode_->lookup_cache() != LookupCache::kTimed) return;
    child.fresh_until_.store(fiber::Now() + inode_->lookup_lifetime(), std::memory_order_relaxed);
  }
  void Unhash(Dentry& child);

  const DentryKind kind_;
  std::atomic<bool> deleted_{false};
  std::atomic<int> mounts_here_{0};
  std::atomic<fiber::Time> fresh_until_{0};  // in directories that are LookupCache::kTimed
  RefPtr<Dentry> parent_;                    // guarded by TreeLock()
  std::string name_;                         // guarded by TreeLock()
  // Declared in this order so that the inode goes before its file system.
  const RefPtr<Filesystem> fs_;
  const RefPtr<Inode> inode_;
  const std::unique_ptr<Directory> directory_;  // null unless a directory

  // DentryCache's.
  boost::intrusive::list_member_hook<> cache_hook_;
  std::atomic<bool> cached_{false};
  std::atomic<bool> referenced_{false};
};

// Keeps recently used dentries, negative ones included, alive: a second-chance list of bounded length. One per process.
class DentryCache final {
 public:
  static constexpr size_t kMaxEntries = 8192;

  static DentryCache& Get();
  // A dentry was made or found.
  void Touch(Dentry& dentry);
  // The name has gone: it must not keep its inode alive.
  void Forget(Dentry& dentry);
  // A file system has no mount left.
  void Purge(const Filesystem& fs);
  // Everything unused (tests, memory pressure).
  void Clear();
  size_t size() const;

 private:
  using List = boost::intrusive::list<
      Dentry, boost::intrusive::member_hook<Dentry, boost::intrusive::list_member_hook<>, &Dentry::cache_hook_>>;

  mutable sync::Mutex mu_{sync::Rank::kDentryCache};
  List list_ GUARDED_BY(mu_);  // each holds one reference; least recently added first
};

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_DENTRY_H_
