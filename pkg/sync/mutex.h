// sync::Mutex: the short lock. Never held across a fiber's park, a Switch or any host call that may block; fiber::Mutex
// is for those. Ranks (ranks.h) are checked at run time in builds without NDEBUG.
#ifndef REDOUBT_PKG_SYNC_MUTEX_H_
#define REDOUBT_PKG_SYNC_MUTEX_H_

#include <mutex>

#include "pkg/sync/annotations.h"
#include "pkg/sync/ranks.h"

namespace redoubt::sync {

namespace internal {
#ifdef NDEBUG
inline void PushRank(Rank, bool) {}
inline void PopRank(Rank) {}
inline int HeldCount() { return 0; }
#else
void PushRank(Rank rank, bool nested);
void PopRank(Rank rank);
int HeldCount();
#endif
}  // namespace internal

// How many sync::Mutexes this OS thread holds; always 0 under NDEBUG. The executor checks it at every park.
inline int HeldMutexes() { return internal::HeldCount(); }

class CAPABILITY("mutex") Mutex final {
 public:
  constexpr explicit Mutex(Rank rank) : rank_(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ACQUIRE() {
    internal::PushRank(rank_, false);
    mu_.lock();
  }
  // For a second mutex of the rank already held, in the order that its class documents.
  void LockNested() ACQUIRE() {
    internal::PushRank(rank_, true);
    mu_.lock();
  }
  bool TryLock() TRY_ACQUIRE(true) {
    if (!mu_.try_lock()) return false;
    internal::PushRank(rank_, true);
    return true;
  }
  void Unlock() RELEASE() {
    mu_.unlock();
    internal::PopRank(rank_);
  }
  void AssertHeld() const ASSERT_CAPABILITY(this) {}

 private:
  std::mutex mu_;
  const Rank rank_;
};

class SCOPED_CAPABILITY MutexLock final {
 public:
  explicit MutexLock(Mutex& mu) ACQUIRE(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() RELEASE() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

class SCOPED_CAPABILITY MutexLockNested final {
 public:
  explicit MutexLockNested(Mutex& mu) ACQUIRE(mu) : mu_(mu) { mu_.LockNested(); }
  ~MutexLockNested() RELEASE() { mu_.Unlock(); }
  MutexLockNested(const MutexLockNested&) = delete;
  MutexLockNested& operator=(const MutexLockNested&) = delete;

 private:
  Mutex& mu_;
};

}  // namespace redoubt::sync

#endif  // REDOUBT_PKG_SYNC_MUTEX_H_
