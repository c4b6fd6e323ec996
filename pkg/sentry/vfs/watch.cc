#include "pkg/sentry/vfs/watch.h"

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt::vfs {

namespace watch_internal {
constinit std::atomic<int64_t> count{0};
}  // namespace watch_internal

// The watches of those inodes that fall into it. What leaves is dropped without the lock: it may be the last that holds
// its inode.
struct WatchBucket {
  struct List {
    std::vector<RefPtr<Watch>> watches;  // not empty
    bool last_name_gone = false;
  };

  // The place of a watch in its list, or the end.
  static size_t PlaceOf(const List& list, const void* owner) {
    size_t i = 0;
    while (i < list.watches.size() && list.watches[i]->owner() != owner) i++;
    return i;
  }
  List* FindLocked(const Inode& inode) REQUIRES(mu) {
    auto it = lists.find(&inode);
    return it == lists.end() ? nullptr : &it->second;
  }
  // Leaves the list to be looked at: empty ones are for DropEmptyLocked.
  RefPtr<Watch> RemoveLocked(List& list, size_t i) REQUIRES(mu) {
    RefPtr<Watch> watch = std::move(list.watches[i]);
    list.watches.erase(list.watches.begin() + static_cast<ptrdiff_t>(i));
    count.fetch_sub(1, std::memory_order_relaxed);
    watch_internal::count.fetch_sub(1, std::memory_order_relaxed);
    watch->OnRemoved();
    return watch;
  }
  void DropEmptyLocked(const Inode& inode, const List& list) REQUIRES(mu) {
    if (list.watches.empty()) lists.erase(&inode);
  }
  // Tells all of an inode, and they leave.
  void EndLocked(const Inode& inode, List& list, uint32_t mask, std::vector<RefPtr<Watch>>& dropped) REQUIRES(mu) {
    while (!list.watches.empty()) {
      (void)list.watches.front()->OnEvent({.mask = mask});
      dropped.push_back(RemoveLocked(list, 0));
    }
    lists.erase(&inode);
  }

  std::atomic<int64_t> count{0};  // of watches; changes with the lock held
  sync::Mutex mu{sync::Rank::kWatches};
  std::unordered_map<const Inode*, List> lists GUARDED_BY(mu);
};

namespace {

constexpr int kBucketBits = 10;

// Made with the first watch.
WatchBucket* Buckets() {
  static auto* const buckets = new WatchBucket[1 << kBucketBits];
  return buckets;
}

WatchBucket& BucketOf(const Inode& inode) {
  const uint64_t hash = reinterpret_cast<uintptr_t>(&inode) * uint64_t{0x9e3779b97f4a7c15};
  return Buckets()[hash >> (64 - kBucketBits)];
}

// Null if nothing there is watched.
WatchBucket* BucketInUse(const Inode& inode) {
  if (!AnyWatches()) return nullptr;
  WatchBucket& bucket = BucketOf(inode);
  return bucket.count.load(std::memory_order_relaxed) != 0 ? &bucket : nullptr;
}

}  // namespace

Watch::Watch(const Path& path, const void* owner)
    : owner_(owner), fs_(&path.inode().filesystem()), inode_(path.dentry->inode_ref()), dentry_(path.dentry) {}

Watch::~Watch() = default;

Result<> Watches::Add(RefPtr<Watch> watch) {
  // Read-modify-writes are barriers on this machine: either NameGone sees the count, or this sees the dentry deleted.
  if (watch_internal::count.fetch_add(1) >= kMost) {
    watch_internal::count.fetch_sub(1);
    return Err(ENOSPC);
  }
  const RefPtr<Dentry> dentry = watch->dentry_;
  WatchBucket& bucket = BucketOf(watch->inode());
  bucket.count.fetch_add(1);
  {
    sync::MutexLock lock(bucket.mu);
    bucket.lists[&watch->inode()].watches.push_back(std::move(watch));
  }
  // It may have been deleted since it was looked up, or never have had a name.
  if (dentry->deleted()) NameGone(*dentry);
  return {};
}

bool Watches::Remove(Watch& watch) {
  WatchBucket& bucket = BucketOf(watch.inode());
  RefPtr<Watch> dropped;
  sync::MutexLock lock(bucket.mu);
  WatchBucket::List* list = bucket.FindLocked(watch.inode());
  if (list == nullptr) return false;
  const size_t i = WatchBucket::PlaceOf(*list, watch.owner());
  if (i == list->watches.size() || list->watches[i].get() != &watch) return false;
  dropped = bucket.RemoveLocked(*list, i);
  bucket.DropEmptyLocked(watch.inode(), *list);
  return true;
}

RefPtr<Watch> Watches::Find(const Inode& inode, const void* owner) {
  WatchBucket* bucket = BucketInUse(inode);
  if (bucket == nullptr) return nullptr;
  sync::MutexLock lock(bucket->mu);
  WatchBucket::List* list = bucket->FindLocked(inode);
  if (list == nullptr) return nullptr;
  const size_t i = WatchBucket::PlaceOf(*list, owner);
  return i == list->watches.size() ? nullptr : list->watches[i];
}

void Watches::Tell(const Inode& inode, const FileEvent& event) {
  WatchBucket* bucket = BucketInUse(inode);
  if (bucket == nullptr) return;
  std::vector<RefPtr<Watch>> dropped;
  sync::MutexLock lock(bucket->mu);
  WatchBucket::List* list = bucket->FindLocked(inode);
  if (list == nullptr) return;
  for (size_t i = 0; i < list->watches.size();) {
    if (list->watches[i]->OnEvent(event) == Watch::After::kStay) {
      i++;
    } else {
      dropped.push_back(bucket->RemoveLocked(*list, i));
    }
  }
  bucket->DropEmptyLocked(inode, *list);
}

void Watches::NameGone(const Dentry& dentry) {
  if (dentry.negative()) return;
  Inode& inode = dentry.inode();
  WatchBucket* bucket = BucketInUse(inode);
  if (bucket == nullptr) return;
  {
    sync::MutexLock lock(bucket->mu);
    if (bucket->FindLocked(inode) == nullptr) return;
  }
  bool last = inode.IsDirectory();
  if (!last) {
    Result<Attributes> attrs = inode.GetAttributes();
    last = !attrs || attrs->nlink == 0;
  }
  std::vector<RefPtr<Dentry>> dropped;
  sync::MutexLock lock(bucket->mu);
  WatchBucket::List* list = bucket->FindLocked(inode);
  if (list == nullptr) return;
  if (last) list->last_name_gone = true;
  for (RefPtr<Watch>& watch : list->watches) {
    if (watch->dentry_.get() == &dentry) dropped.push_back(std::move(watch->dentry_));
  }
}

void Watches::NameMade(const Inode& inode) {
  WatchBucket* bucket = BucketInUse(inode);
  if (bucket == nullptr) return;
  sync::MutexLock lock(bucket->mu);
  if (WatchBucket::List* list = bucket->FindLocked(inode)) list->last_name_gone = false;
}

void Watches::NameReleased(const Inode& inode) {
  WatchBucket* bucket = BucketInUse(inode);
  if (bucket == nullptr) return;
  std::vector<RefPtr<Watch>> dropped;
  sync::MutexLock lock(bucket->mu);
  WatchBucket::List* list = bucket->FindLocked(inode);
  if (list != nullptr && list->last_name_gone) bucket->EndLocked(inode, *list, IN_DELETE_SELF, dropped);
}

void Watches::Unmounted(const Filesystem& fs) {
  if (!AnyWatches()) return;
  std::vector<RefPtr<Watch>> dropped;
  for (int b = 0; b < 1 << kBucketBits; b++) {
    WatchBucket& bucket = Buckets()[b];
    if (bucket.count.load(std::memory_order_relaxed) == 0) continue;
    sync::MutexLock lock(bucket.mu);
    std::vector<const Inode*> inodes;
    for (const auto& [inode, list] : bucket.lists) {
      if (&inode->filesystem() == &fs) inodes.push_back(inode);
    }
    for (const Inode* inode : inodes) {
      const uint32_t mask = inode->IsDirectory() ? IN_UNMOUNT | IN_ISDIR : IN_UNMOUNT;
      bucket.EndLocked(*inode, *bucket.FindLocked(*inode), mask, dropped);
    }
  }
}

namespace watch_internal {

void TellAt(const Dentry& dentry, uint32_t mask, bool nameless) {
  const Inode& inode = dentry.inode();
  if (inode.IsDirectory()) mask |= IN_ISDIR;
  // The directory first, as Linux has it.
  RefPtr<Dentry> parent;
  std::string name;
  if (dentry.kind() == DentryKind::kNamed) {
    sync::MutexLock lock(Dentry::TreeLock());
    const RefPtr<Dentry>& above = dentry.ParentLocked();
    if (above && BucketInUse(above->inode()) != nullptr) {
      parent = above;
      name = dentry.NameLocked();
    }
  }
  if (parent) Watches::Tell(parent->inode(), {.mask = mask, .name = name, .nameless = nameless});
  Watches::Tell(inode, {.mask = mask, .nameless = nameless});
}

void TellFile(const FileDescription& file, uint32_t mask) {
  if (file.path()) TellAt(*file.path().dentry, mask, file.path().dentry->deleted());
}

void TellInode(const Inode& inode, uint32_t mask) {
  // IN_MOVE_SELF comes without, as IN_DELETE_SELF does.
  if (inode.IsDirectory() && mask != IN_MOVE_SELF) mask |= IN_ISDIR;
  Watches::Tell(inode, {.mask = mask});
}

}  // namespace watch_internal

uint32_t NewRenameCookie() {
  static constinit std::atomic<uint32_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace redoubt::vfs
