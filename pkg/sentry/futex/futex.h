// futex(2): sleeping on a word of guest memory. One manager for the whole Sentry.
#ifndef REDOUBT_PKG_SENTRY_FUTEX_FUTEX_H_
#define REDOUBT_PKG_SENTRY_FUTEX_FUTEX_H_

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/memmap/futex_key.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sync/mutex.h"

namespace redoubt::futex {

using mm::FutexKey;

// Where a futex operation finds its words: the caller's address space. mm::MemoryManager in the Sentry, a fake in
// tests.
class Target {
 public:
  virtual ~Target() = default;
  virtual Result<FutexKey> GetFutexKey(Addr addr, bool is_private) = 0;
  virtual MemoryIo& io() = 0;
};

// Thread-safe. Blocks only in Wait.
class Manager final {
 public:
  Manager() = default;
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  // FUTEX_WAIT_BITSET. EAGAIN if the word is not `expected`; ETIMEDOUT; kErestartsys if interrupted; EINVAL for an
  // empty bitset or an unaligned word.
  Result<> Wait(Target& target, Addr addr, bool is_private, uint32_t expected, uint32_t bitset, fiber::Time deadline);
  // Wakes at most `count` waiters whose bitset shares a bit; returns how many.
  Result<uint32_t> Wake(Target& target, Addr addr, bool is_private, uint32_t count, uint32_t bitset);
  // FUTEX_CMP_REQUEUE (EAGAIN if the word is not *expected) and FUTEX_REQUEUE (null): wakes `wake`, moves `requeue` to
  // addr2. Returns woken plus moved: futex(2) says that
  // FUTEX_REQUEUE does not count the moved, but Linux does.
  Result<uint32_t> Requeue(Target& target, Addr addr1, Addr addr2, bool is_private, uint32_t wake, uint32_t requeue,
                           const uint32_t* expected);
  // FUTEX_WAKE_OP: applies `op` (futex(2)) to the word at addr2 and wakes on both.
  Result<uint32_t> WakeOp(Target& target, Addr addr1, Addr addr2, bool is_private, uint32_t wake1, uint32_t wake2,
                          uint32_t op);

 private:
  struct Waiter : boost::intrusive::list_base_hook<> {
    FutexKey key;
    uint32_t bitset = 0;
    RefPtr<fiber::Fiber> fiber;
    bool woken = false;
  };
  // All waiters' state (key, woken, links) is guarded by the mutex of the bucket of their key; since a requeue changes
  // the key, one mutex guards all buckets. It is held for a list walk at most.
  using Bucket = boost::intrusive::list<Waiter>;
  static constexpr size_t kBuckets = 256;

  Bucket& BucketOf(const FutexKey& key) REQUIRES(mu_);
  uint32_t WakeLocked(const FutexKey& key, uint32_t count, uint32_t bitset) REQUIRES(mu_);

  sync::Mutex mu_{sync::Rank::kFutex};
  std::array<Bucket, kBuckets> buckets_ GUARDED_BY(mu_);
};

}  // namespace redoubt::futex

#endif  // REDOUBT_PKG_SENTRY_FUTEX_FUTEX_H_
