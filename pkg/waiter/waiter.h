// Wait queues: who wants to hear that an object became readable, writable, ... The counterpart of Linux's
// wait_queue_head_t and poll callbacks.
#ifndef REDOUBT_PKG_WAITER_WAITER_H_
#define REDOUBT_PKG_WAITER_WAITER_H_

#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "pkg/fiber/fiber.h"
#include "pkg/sync/mutex.h"

namespace redoubt::waiter {

// poll(2)'s event bits, with their numbers.
using EventMask = uint32_t;
inline constexpr EventMask kIn = 0x001;
inline constexpr EventMask kPri = 0x002;
inline constexpr EventMask kOut = 0x004;
inline constexpr EventMask kErr = 0x008;
inline constexpr EventMask kHup = 0x010;
inline constexpr EventMask kNval = 0x020;
inline constexpr EventMask kRdNorm = 0x040;
inline constexpr EventMask kRdBand = 0x080;
inline constexpr EventMask kWrNorm = 0x100;
inline constexpr EventMask kWrBand = 0x200;
inline constexpr EventMask kRdHup = 0x2000;
inline constexpr EventMask kAll = ~EventMask{0};

class Queue;

// One waiter's place in one queue. Owned by the waiter, which must unregister it before it dies.
class Entry : public boost::intrusive::list_base_hook<> {
 public:
  explicit Entry(EventMask mask) : mask_(mask) {}
  virtual ~Entry() = default;
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;

  // Some event of the entry's mask may have become true. Called with the queue's lock held: must be short, must not
  // touch the queue, may take only ranks above kWaiterQueue.
  virtual void Notify(EventMask events) = 0;

  EventMask mask() const { return mask_; }

 private:
  friend class Queue;
  EventMask mask_;
};

// Unparks the fiber that made it.
class FiberEntry final : public Entry {
 public:
  explicit FiberEntry(EventMask mask) : Entry(mask), fiber_(fiber::Current()) {}
  void Notify(EventMask) override { fiber_->Unpark(); }

 private:
  RefPtr<fiber::Fiber> fiber_;
};

// The waiters of one object.
class Queue final {
 public:
  Queue() : mu_(sync::Rank::kWaiterQueue) {}
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  void Register(Entry& entry) EXCLUDES(mu_);
  // After it returns, the entry's Notify is not running and will not run. No effect if not registered.
  void Unregister(Entry& entry) EXCLUDES(mu_);
  void Notify(EventMask events) EXCLUDES(mu_);
  // As Notify, from inside another queue's Notify (an epoll passing on an event of a file it watches).
  void NotifyNested(EventMask events) EXCLUDES(mu_);
  bool IsEmpty() const EXCLUDES(mu_);

 private:
  void NotifyLocked(EventMask events) REQUIRES(mu_);

  mutable sync::Mutex mu_;
  boost::intrusive::list<Entry> entries_ GUARDED_BY(mu_);
};

}  // namespace redoubt::waiter

#endif  // REDOUBT_PKG_WAITER_WAITER_H_
