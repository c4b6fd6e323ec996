#include "pkg/sentry/vfs/watch.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <utility>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::vfs {

namespace watch_internal {
constinit std::atomic<int64_t> count{0};
}  // namespace watch_internal

namespace {

// The inodes whose lists are not empty, by file system: for unmounting.
struct WatchedInodes {
  sync::Mutex mu{sync::Rank::kWatchedInodes};
  std::set<std::pair<const Filesystem*, Inode*>> inodes GUARDED_BY(mu);
};

WatchedInodes& Watched() {
  static auto* const watched = new WatchedInodes();
  return *watched;
}

}  // namespace

Watch::Watch(const Path& path, const void* owner)
    : owner_(owner), fs_(&path.inode().filesystem()), inode_(path.dentry->inode_ref()), dentry_(path.dentry) {}

Watch::~Watch() = default;

Result<> WatchList::Add(RefPtr<Watch> watch) {
  if (watch_internal::count.fetch_add(1, std::memory_order_relaxed) >= kMost) {
    watch_internal::count.fetch_sub(1, std::memory_order_relaxed);
    return Err(ENOSPC);
  }
  Inode& inode = watch->inode();
  WatchList& list = inode.watches();
  RefPtr<Dentry> dentry;
  {
    sync::MutexLock lock(list.mu_);
    dentry = watch->dentry_;
    if (list.watches_.empty()) {
      sync::MutexLock watched(Watched().mu);
      Watched().inodes.emplace(&inode.filesystem(), &inode);
    }
    list.watches_.push_back(std::move(watch));
  }
  // It may have been deleted before, or since it was looked up.
  dentry->TellIfNameGone();
  return {};
}

bool WatchList::Remove(Watch& watch) {
  WatchList& list = watch.inode().watches();
  RefPtr<Watch> removed;
  {
    sync::MutexLock lock(list.mu_);
    auto it = std::ranges::find(list.watches_, &watch, &RefPtr<Watch>::get);
    if (it == list.watches_.end()) return false;
    removed = list.RemoveLocked(it);
  }
  return true;
}

RefPtr<Watch> WatchList::Find(Inode& inode, const void* owner) {
  WatchList* list = inode.watches_if_any();
  if (list == nullptr) return nullptr;
  sync::MutexLock lock(list->mu_);
  auto it = std::ranges::find(list->watches_, owner, &Watch::owner);
  return it == list->watches_.end() ? nullptr : *it;
}

RefPtr<Watch> WatchList::RemoveLocked(Watches::iterator it) {
  RefPtr<Watch> watch = std::move(*it);
  watches_.erase(it);
  if (watches_.empty()) {
    Inode& inode = watch->inode();
    sync::MutexLock watched(Watched().mu);
    Watched().inodes.erase({&inode.filesystem(), &inode});
  }
  watch_internal::count.fetch_sub(1, std::memory_order_relaxed);
  watch->OnRemoved();
  return watch;
}

void WatchList::Tell(const FileEvent& event) {
  Watches removed;
  sync::MutexLock lock(mu_);
  for (size_t i = 0; i < watches_.size();) {
    if (watches_[i]->OnEvent(event) == Watch::After::kStay) {
      i++;
    } else {
      removed.push_back(RemoveLocked(watches_.begin() + static_cast<ptrdiff_t>(i)));
    }
  }
}

void WatchList::NameGone(const Dentry& dentry, bool last_name) {
  std::vector<RefPtr<Dentry>> dropped;
  sync::MutexLock lock(mu_);
  if (last_name) last_name_gone_ = true;
  for (RefPtr<Watch>& watch : watches_) {
    if (watch->dentry_.get() == &dentry) dropped.push_back(std::move(watch->dentry_));
  }
}

void WatchList::NameMade() {
  sync::MutexLock lock(mu_);
  last_name_gone_ = false;
}

void WatchList::NameReleased() {
  {
    sync::MutexLock lock(mu_);
    if (!last_name_gone_) return;
  }
  End(IN_DELETE_SELF);
}

void WatchList::End(uint32_t mask) {
  Watches removed;
  sync::MutexLock lock(mu_);
  while (!watches_.empty()) {
    (void)watches_.front()->OnEvent({.mask = mask});
    removed.push_back(RemoveLocked(watches_.begin()));
  }
}

void WatchList::Unmounted(const Filesystem& fs) {
  if (!AnyWatches()) return;
  std::vector<RefPtr<Inode>> inodes;
  {
    WatchedInodes& watched = Watched();
    sync::MutexLock lock(watched.mu);
    // A list that is not empty has a watch, which keeps the inode.
    for (auto it = watched.inodes.lower_bound({&fs, nullptr}); it != watched.inodes.end() && it->first == &fs; ++it) {
      inodes.emplace_back(it->second);
    }
  }
  for (const RefPtr<Inode>& inode : inodes) {
    inode->watches().End(inode->IsDirectory() ? IN_UNMOUNT | IN_ISDIR : IN_UNMOUNT);
  }
}

namespace watch_internal {

void TellAt(const Dentry& dentry, uint32_t mask, bool nameless) {
  Inode& inode = dentry.inode();
  if (inode.IsDirectory()) mask |= IN_ISDIR;
  // The directory first, as Linux has it.
  RefPtr<Dentry> parent;
  std::string name;
  {
    sync::MutexLock lock(Dentry::TreeLock());
    const RefPtr<Dentry>& above = dentry.ParentLocked();
    if (above && above->inode().watches_if_any() != nullptr) {
      parent = above;
      name = dentry.NameLocked();
    }
  }
  if (parent) parent->inode().watches().Tell({.mask = mask, .name = name, .nameless = nameless});
  if (WatchList* list = inode.watches_if_any()) list->Tell({.mask = mask, .nameless = nameless});
}

void TellFile(const FileDescription& file, uint32_t mask) {
  if (file.path()) TellAt(*file.path().dentry, mask, file.path().dentry->deleted());
}

void TellInode(Inode& inode, uint32_t mask) {
  WatchList* list = inode.watches_if_any();
  if (list == nullptr) return;
  // IN_MOVE_SELF comes without, as IN_DELETE_SELF does.
  if (inode.IsDirectory() && mask != IN_MOVE_SELF) mask |= IN_ISDIR;
  list->Tell({.mask = mask});
}

void TellEntry(const Dentry& dir, std::string_view name, uint32_t mask, uint32_t cookie) {
  if (WatchList* list = dir.inode().watches_if_any()) list->Tell({.mask = mask, .name = name, .cookie = cookie});
}

}  // namespace watch_internal

uint32_t NewRenameCookie() {
  static constinit std::atomic<uint32_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace redoubt::vfs
