#include <vector>

#include "pkg/sentry/vfs/dentry.h"

namespace redoubt::vfs {

DentryCache& DentryCache::Get() {
  // Never destroyed: file systems may outlive static destructors.
  static DentryCache* const cache = new DentryCache();
  return *cache;
}

void DentryCache::Touch(Dentry& dentry) {
  if (dentry.cached_.load(std::memory_order_relaxed)) {
    if (!dentry.referenced_.load(std::memory_order_relaxed)) dentry.referenced_.store(true, std::memory_order_relaxed);
    return;
  }
  // Evicted dentries are dropped after the lock: the end of an inode may take any lock.
  RefPtr<Dentry> evicted[2];
  size_t evictions = 0;
  {
    sync::MutexLock lock(mu_);
    // A name removed meanwhile must not come back.
    if (dentry.cached_.load(std::memory_order_relaxed) || dentry.deleted()) return;
    dentry.cached_.store(true, std::memory_order_relaxed);
    dentry.IncRef();
    list_.push_back(dentry);
    // Bounded work: what was used since it was last looked at goes to the back once.
    for (int looked = 0; list_.size() > kMaxEntries && looked < 16 && evictions < 2; looked++) {
      Dentry& oldest = list_.front();
      list_.pop_front();
      if (oldest.referenced_.exchange(false, std::memory_order_relaxed) && looked < 15) {
        list_.push_back(oldest);
        continue;
      }
      oldest.cached_.store(false, std::memory_order_relaxed);
      evicted[evictions++] = RefPtr<Dentry>::Adopt(&oldest);
    }
  }
}

void DentryCache::Forget(Dentry& dentry) {
  RefPtr<Dentry> dropped;
  sync::MutexLock lock(mu_);
  if (!dentry.cached_.load(std::memory_order_relaxed)) return;
  list_.erase(list_.iterator_to(dentry));
  dentry.cached_.store(false, std::memory_order_relaxed);
  dropped = RefPtr<Dentry>::Adopt(&dentry);
}

void DentryCache::Purge(const Filesystem& fs) {
  std::vector<RefPtr<Dentry>> dropped;
  sync::MutexLock lock(mu_);
  for (auto it = list_.begin(); it != list_.end();) {
    Dentry& dentry = *it;
    if (dentry.fs_.get() != &fs) {
      ++it;
      continue;
    }
    it = list_.erase(it);
    dentry.cached_.store(false, std::memory_order_relaxed);
    dropped.push_back(RefPtr<Dentry>::Adopt(&dentry));
  }
}

void DentryCache::Clear() {
  std::vector<RefPtr<Dentry>> dropped;
  sync::MutexLock lock(mu_);
  while (!list_.empty()) {
    Dentry& dentry = list_.front();
    list_.pop_front();
    dentry.cached_.store(false, std::memory_order_relaxed);
    dropped.push_back(RefPtr<Dentry>::Adopt(&dentry));
  }
}

size_t DentryCache::size() const {
  sync::MutexLock lock(mu_);
  return list_.size();
}

}  // namespace redoubt::vfs
