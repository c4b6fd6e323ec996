#include "pkg/sentry/futex/futex.h"

#include <linux/futex.h>

#include <functional>

#include "pkg/sentry/wait/wait.h"

namespace redoubt::futex {

Manager::Bucket& Manager::BucketOf(const FutexKey& key) {
  uint64_t h = reinterpret_cast<uintptr_t>(key.space) * 0x9e3779b97f4a7c15 ^ (key.offset >> 2) * 0xc2b2ae3d27d4eb4f;
  return buckets_[(h >> 32) % kBuckets];
}

Result<> Manager::Wait(Target& target, Addr addr, bool is_private, uint32_t expected, uint32_t bitset,
                       fiber::Time deadline) {
  if (bitset == 0 || addr % sizeof(uint32_t) != 0) return Err(EINVAL);
  Waiter waiter;
  waiter.bitset = bitset;
  waiter.fiber = RefPtr<fiber::Fiber>(fiber::Current());
  waiter.key = TRY(target.GetFutexKey(addr, is_private));
  {
    sync::MutexLock lock(mu_);
    BucketOf(waiter.key).push_back(waiter);
  }
  // Queued first, looked at second: whoever changes the word after this look finds the waiter. So guest memory is never
  // touched (which may fault and park) under the lock.
  Result<uint32_t> value = target.io().LoadU32(addr);
  Result<> outcome;
  if (!value) {
    outcome = Err(value.error());
  } else if (*value != expected) {
    outcome = Err(EAGAIN);
  } else {
    while (outcome) {
      {
        sync::MutexLock lock(mu_);
        if (waiter.woken) return {};
      }
      outcome = wait::Block(deadline);
    }
  }
  sync::MutexLock lock(mu_);
  // A wake that came meanwhile was counted by the waker, so it must not be lost.
  if (waiter.woken) return {};
  BucketOf(waiter.key).erase(Bucket::s_iterator_to(waiter));
  return outcome;
}

uint32_t Manager::WakeLocked(const FutexKey& key, uint32_t count, uint32_t bitset) {
  Bucket& bucket = BucketOf(key);
  uint32_t woken = 0;
  for (auto it = bucket.begin(); it != bucket.end() && woken < count;) {
    Waiter& w = *it;
    if (w.key != key || (w.bitset & bitset) == 0) {
      ++it;
      continue;
    }
    it = bucket.erase(it);
    // The fiber may return, and the Waiter die, as soon as the lock is released: keep it locked until unparked.
    w.woken = true;
    w.fiber->Unpark();
    woken++;
  }
  return woken;
}

Result<uint32_t> Manager::Wake(Target& target, Addr addr, bool is_private, uint32_t count, uint32_t bitset) {
  if (bitset == 0 || addr % sizeof(uint32_t) != 0) return Err(EINVAL);
  FutexKey key = TRY(target.GetFutexKey(addr, is_private));
  sync::MutexLock lock(mu_);
  return WakeLocked(key, count, bitset);
}

Result<uint32_t> Manager::Requeue(Target& target, Addr addr1, Addr addr2, bool is_private, uint32_t wake,
                                  uint32_t requeue, const uint32_t* expected) {
  if (addr1 % sizeof(uint32_t) != 0 || addr2 % sizeof(uint32_t) != 0) return Err(EINVAL);
  FutexKey from = TRY(target.GetFutexKey(addr1, is_private));
  FutexKey to = TRY(target.GetFutexKey(addr2, is_private));
  if (expected != nullptr && TRY(target.io().LoadU32(addr1)) != *expected) return Err(EAGAIN);
  sync::MutexLock lock(mu_);
  uint32_t done = WakeLocked(from, wake, FUTEX_BITSET_MATCH_ANY);
  Bucket& source = BucketOf(from);
  Bucket& destination = BucketOf(to);
  uint32_t moved = 0;
  for (auto it = source.begin(); it != source.end() && moved < requeue;) {
    Waiter& w = *it;
    if (w.key != from) {
      ++it;
      continue;
    }
    moved++;
    if (from == to) {  // counts, but nobody loses his place
      ++it;
      continue;
    }
    it = source.erase(it);
    w.key = to;
    destination.push_back(w);
  }
  return done + moved;
}

Result<uint32_t> Manager::WakeOp(Target& target, Addr addr1, Addr addr2, bool is_private, uint32_t wake1,
                                 uint32_t wake2, uint32_t op) {
  if (addr1 % sizeof(uint32_t) != 0 || addr2 % sizeof(uint32_t) != 0) return Err(EINVAL);
  // futex(2), FUTEX_WAKE_OP: op:4 cmp:4 oparg:12 cmparg:12, both arguments signed.
  uint32_t operation = (op >> 28) & 0x7;
  bool shift = ((op >> 28) & FUTEX_OP_OPARG_SHIFT) != 0;
  uint32_t compare = (op >> 24) & 0xf;
  int32_t oparg = static_cast<int32_t>(op << 8) >> 20;
  int32_t cmparg = static_cast<int32_t>(op << 20) >> 20;
  if (shift) {
    if (oparg < 0 || oparg > 31) return Err(EINVAL);
    oparg = static_cast<int32_t>(uint32_t{1} << oparg);
  }
  FutexKey key1 = TRY(target.GetFutexKey(addr1, is_private));
  FutexKey key2 = TRY(target.GetFutexKey(addr2, is_private));
  uint32_t old = TRY(target.io().LoadU32(addr2));
  while (true) {
    uint32_t arg = static_cast<uint32_t>(oparg);
    uint32_t next = 0;
    switch (operation) {
      case FUTEX_OP_SET:
        next = arg;
        break;
      case FUTEX_OP_ADD:
        next = old + arg;
        break;
      case FUTEX_OP_OR:
        next = old | arg;
        break;
      case FUTEX_OP_ANDN:
        next = old & ~arg;
        break;
      case FUTEX_OP_XOR:
        next = old ^ arg;
        break;
      default:
        return Err(ENOSYS);
    }
    uint32_t found = TRY(target.io().CompareAndSwapU32(addr2, old, next));
    if (found == old) break;
    old = found;
  }
  int32_t before = static_cast<int32_t>(old);
  bool matches = false;
  switch (compare) {
    case FUTEX_OP_CMP_EQ:
      matches = before == cmparg;
      break;
    case FUTEX_OP_CMP_NE:
      matches = before != cmparg;
      break;
    case FUTEX_OP_CMP_LT:
      matches = before < cmparg;
      break;
    case FUTEX_OP_CMP_LE:
      matches = before <= cmparg;
      break;
    case FUTEX_OP_CMP_GT:
      matches = before > cmparg;
      break;
    case FUTEX_OP_CMP_GE:
      matches = before >= cmparg;
      break;
    default:
      return Err(ENOSYS);
  }
  sync::MutexLock lock(mu_);
  uint32_t woken = WakeLocked(key1, wake1, FUTEX_BITSET_MATCH_ANY);
  if (matches) woken += WakeLocked(key2, wake2, FUTEX_BITSET_MATCH_ANY);
  return woken;
}

}  // namespace redoubt::futex
