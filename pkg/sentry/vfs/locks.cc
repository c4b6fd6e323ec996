#include "pkg/sentry/vfs/locks.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "pkg/sentry/wait/wait.h"

namespace redoubt::vfs {

namespace {

// Which owner of traditional locks waits for which, over all files. An owner may wait several times (threads).
class WaitGraph final {
 public:
  // False, and no edge, if `to` already waits, directly or not, for `from`.
  bool Add(const void* from, const void* to) {
    sync::MutexLock lock(mu_);
    std::vector<const void*> open{to};
    std::unordered_set<const void*> seen;
    while (!open.empty()) {
      const void* owner = open.back();
      open.pop_back();
      if (owner == from) return false;
      if (!seen.insert(owner).second) continue;
      auto [begin, end] = edges_.equal_range(owner);
      for (auto it = begin; it != end; ++it) open.push_back(it->second);
    }
    edges_.emplace(from, to);
    return true;
  }
  void Remove(const void* from, const void* to) {
    sync::MutexLock lock(mu_);
    auto [begin, end] = edges_.equal_range(from);
    for (auto it = begin; it != end; ++it) {
      if (it->second == to) {
        edges_.erase(it);
        return;
      }
    }
  }

 private:
  sync::Mutex mu_{sync::Rank::kFileLockGraph};
  std::unordered_multimap<const void*, const void*> edges_ GUARDED_BY(mu_);
};

WaitGraph& Graph() {
  static WaitGraph* const graph = new WaitGraph();
  return *graph;
}

}  // namespace

FileLocks::~FileLocks() = default;

template <typename Attempt>
Result<> FileLocks::Wait(Attempt&& attempt) {
  waiter::FiberEntry entry(waiter::kIn);
  queue_.Register(entry);
  Result<> result = attempt();
  while (!result && result.error() == Errno(EAGAIN)) {
    Result<> slept = wait::Block();
    result = attempt();
    if (!slept && !result && result.error() == Errno(EAGAIN)) result = slept;
  }
  queue_.Unregister(entry);
  return result;
}

Result<> FileLocks::Flock(const void* owner, LockType type, LockWait wait) {
  auto attempt = [&]() -> Result<> {
    sync::MutexLock lock(mu_);
    auto mine = std::ranges::find(flocks_, owner, &FlockEntry::owner);
    if (mine != flocks_.end()) {
      if (mine->type == type) return {};
      flocks_.erase(mine);
      WakeLocked();
    }
    if (type == LockType::kUnlock) return {};
    for (const FlockEntry& other : flocks_) {
      if (type == LockType::kWrite || other.type == LockType::kWrite) return Err(EAGAIN);
    }
    flocks_.push_back({owner, type});
    return {};
  };
  Result<> result = attempt();
  if (result || wait == LockWait::kNo || result.error() != Errno(EAGAIN)) return result;
  return Wait(attempt);
}

const RecordLock* FileLocks::ConflictLocked(const RecordLock& lock) const {
  for (const RecordLock& other : records_) {
    if (other.start >= lock.end || lock.start >= other.end) continue;
    if (other.kind == lock.kind && other.owner == lock.owner) continue;
    if (lock.type == LockType::kWrite || other.type == LockType::kWrite) return &other;
  }
  return nullptr;
}

Result<> FileLocks::ApplyLocked(const RecordLock& lock) {
  std::vector<RecordLock> result;
  result.reserve(records_.size() + 2);
  RecordLock merged = lock;
  for (const RecordLock& old : records_) {
    const bool mine = old.kind == lock.kind && old.owner == lock.owner;
    const bool same_type = old.type == lock.type;
    if (!mine || old.end < lock.start || old.start > lock.end) {
      result.push_back(old);
      continue;
    }
    if (same_type) {
      // Overlapping or adjacent.
      merged.start = std::min(merged.start, old.start);
      merged.end = std::max(merged.end, old.end);
      continue;
    }
    // What lies outside the new lock stays.
    if (old.start < lock.start) {
      RecordLock left = old;
      left.end = std::min(old.end, lock.start);
      result.push_back(left);
    }
    if (old.end > lock.end) {
      RecordLock right = old;
      right.start = std::max(old.start, lock.end);
      result.push_back(right);
    }
  }
  if (lock.type != LockType::kUnlock) result.push_back(merged);
  // Unlocking a part of one makes two of it.
  if (result.size() > kMaxRecords && result.size() > records_.size()) return Err(ENOLCK);
  records_ = std::move(result);
  return {};
}

Result<> FileLocks::SetRecord(const RecordLock& lock, LockWait wait) {
  std::list<Blocked>::iterator self;
  bool waiting = false;
  auto attempt = [&]() -> Result<> {
    sync::MutexLock guard(mu_);
    if (waiting) {
      if (self->blocked_by != nullptr) Graph().Remove(self->owner, self->blocked_by);
      blocked_.erase(self);
      waiting = false;
    }
    if (lock.type != LockType::kUnlock) {
      if (const RecordLock* conflict = ConflictLocked(lock)) {
        if (wait == LockWait::kYes && lock.kind == RecordKind::kPosix && conflict->kind == RecordKind::kPosix) {
          if (!Graph().Add(lock.owner, conflict->owner)) return Err(EDEADLK);
          self = blocked_.insert(blocked_.end(), {lock.owner, conflict->owner});
          waiting = true;
        }
        return Err(EAGAIN);
      }
    }
    TRY(ApplyLocked(lock));
    // Also a read lock in the place of a write lock lets others in.
    WakeLocked();
    return {};
  };
  if (wait == LockWait::kNo || lock.type == LockType::kUnlock) return attempt();
  Result<> result = Wait(attempt);
  if (waiting) {
    sync::MutexLock guard(mu_);
    if (self->blocked_by != nullptr) Graph().Remove(self->owner, self->blocked_by);
    blocked_.erase(self);
  }
  return result;
}

std::optional<RecordLock> FileLocks::TestRecord(const RecordLock& lock) {
  sync::MutexLock guard(mu_);
  const RecordLock* conflict = ConflictLocked(lock);
  return conflict == nullptr ? std::nullopt : std::optional(*conflict);
}

void FileLocks::ReleasePosix(const void* owner) {
  sync::MutexLock guard(mu_);
  size_t erased =
      std::erase_if(records_, [&](const RecordLock& r) { return r.kind == RecordKind::kPosix && r.owner == owner; });
  if (erased > 0) WakeLocked();
}

void FileLocks::ReleaseDescription(const void* owner) {
  sync::MutexLock guard(mu_);
  size_t erased =
      std::erase_if(records_, [&](const RecordLock& r) { return r.kind == RecordKind::kOfd && r.owner == owner; });
  erased += std::erase_if(flocks_, [&](const FlockEntry& f) { return f.owner == owner; });
  if (erased > 0) WakeLocked();
}

void FileLocks::WakeLocked() {
  for (Blocked& b : blocked_) {
    if (b.blocked_by == nullptr) continue;
    Graph().Remove(b.owner, b.blocked_by);
    b.blocked_by = nullptr;
  }
  queue_.Notify(waiter::kIn);
}

}  // namespace redoubt::vfs
