// Timers without a thread: the embedder sleeps until NextDeadline() and calls RunTimers().
#ifndef REDOUBT_PKG_NETSTACK_CLOCK_TIMER_H_
#define REDOUBT_PKG_NETSTACK_CLOCK_TIMER_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <vector>

#include "pkg/netstack/clock/clock.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

class TimerQueue;

// One deadline of one object, which owns it as a member. While the timer is in the queue it holds a reference to its
// owner, so a callback never meets a dead one; an owner whose last other reference goes away must have cancelled it,
// or lives until it would have fired. The callback runs with no lock held, and must look under its owner's lock whether
// there is still something to do: a Cancel that races with it does not stop it.
class Timer final {
 public:
  using Callback = void (*)(void* context, Time now);

  // `owner` is what keeps `context` alive, usually the same object.
  Timer(TimerQueue& queue, const RefCounted& owner, Callback callback, void* context)
      : queue_(queue), owner_(owner), callback_(callback), context_(context) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Fires once, at `deadline` or later. Moving the deadline of an armed timer back costs one atomic store: the queue
  // looks at it again when the earlier one comes. May be called under any lock of rank below kNetTimers, and from the
  // callback.
  void Schedule(Time deadline);
  // Will not fire unless it is firing just now. Costs one atomic store; the queue's reference to the owner goes when
  // the old deadline passes.
  void Disarm();
  // As Disarm, and gives the reference back at once. May destroy the owner, so not under its lock.
  void Cancel();
  // When it will fire; kNever if it is not armed.
  Time deadline() const { return deadline_.load(std::memory_order_acquire); }

 private:
  friend class TimerQueue;
  static constexpr size_t kNotQueued = ~size_t{0};

  TimerQueue& queue_;
  const RefCounted& owner_;
  const Callback callback_;
  void* const context_;
  std::atomic<Time> deadline_{kNever};
  // Where it stands in the heap, by a deadline that is never later than the one above while armed.
  std::atomic<Time> queued_deadline_{kNever};
  size_t index_ = kNotQueued;  // guarded by TimerQueue::mu_
};

// A binary heap of timers. Thread-safe.
class TimerQueue final {
 public:
  TimerQueue() : mu_(sync::Rank::kNetTimers) {}
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Called when the earliest deadline has become earlier, with locks of the caller held (not the queue's): must only
  // wake the sleeper. Set before the first timer is scheduled.
  void SetEarlierDeadlineHook(std::function<void(Time deadline)> hook) { hook_ = std::move(hook); }

  // The time at which RunTimers has something to do at the earliest; kNever if no timer is queued. May be too early,
  // never too late.
  Time NextDeadline() const { return next_.load(std::memory_order_acquire); }
  // Fires what is due, at most `limit` timers, in the order of their deadlines. Returns how many callbacks ran.
  size_t RunTimers(Time now, size_t limit = 1024) EXCLUDES(mu_);
  // How many stand in the queue, also disarmed ones.
  size_t size() const EXCLUDES(mu_);

 private:
  friend class Timer;

  void Insert(Timer& timer, Time deadline) EXCLUDES(mu_);
  bool Remove(Timer& timer) EXCLUDES(mu_);
  void RemoveLocked(Timer& timer) REQUIRES(mu_);
  void SiftUp(size_t i) REQUIRES(mu_);
  void SiftDown(size_t i) REQUIRES(mu_);
  void PlaceLocked(size_t i, Timer* timer) REQUIRES(mu_);
  void PublishLocked() REQUIRES(mu_);

  mutable sync::Mutex mu_;
  std::vector<Timer*> heap_ GUARDED_BY(mu_);
  std::atomic<Time> next_{kNever};
  std::function<void(Time)> hook_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_CLOCK_TIMER_H_
