// What both executors share: fibers' states, timers, and the hand-over between a fiber and the thread that runs it.
#ifndef REDOUBT_PKG_FIBER_EXECUTOR_BASE_H_
#define REDOUBT_PKG_FIBER_EXECUTOR_BASE_H_

#include <atomic>
#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>
#include <functional>
#include <vector>

#include "pkg/fiber/context_unsafe.h"
#include "pkg/fiber/fiber.h"
#include "pkg/fiber/sleeper_unsafe.h"
#include "pkg/fiber/stack_unsafe.h"

namespace redoubt::fiber {
namespace internal {

class ExecutorBase;
class FiberImpl;

// Something that is due at a time: a parked fiber, or (fiber null) a Timer::Impl.
struct TimerNode : boost::intrusive::set_base_hook<> {
  Time deadline = 0;
  FiberImpl* fiber = nullptr;
  friend bool operator<(const TimerNode& a, const TimerNode& b) { return a.deadline < b.deadline; }
};
using TimerQueue = boost::intrusive::multiset<TimerNode, boost::intrusive::constant_time_size<false>>;

class FiberImpl final : public Fiber, public boost::intrusive::list_base_hook<> {
 public:
  FiberImpl(ExecutorBase& executor, std::function<void()> body, size_t stack_size);
  void Unpark() override;

 private:
  friend class ExecutorBase;
  enum class Leave { kPark, kYield, kEnd };
  static void Main(void* self);
  // To the scheduler; returns when it chooses this fiber again.
  void SwitchOut(Leave why);

  ExecutorBase& executor_;
  std::function<void()> body_;
  Stack stack_;
  Context context_;
  Context* scheduler_ = nullptr;  // of the thread that runs the fiber
  // What the fiber asks of the scheduler: written before the switch, read after it.
  Leave leave_ = Leave::kYield;
  Time deadline_ = kForever;
  // A wake not yet seen. Set by Unpark before it takes the executor's lock, taken by Park.
  std::atomic<bool> token_{false};
  std::atomic<bool> ended_{false};
  // Guarded by the executor's lock.
  bool parked_ = false;
  TimerNode timer_;
};

// What this OS thread runs. Fibers move between threads: only through ThisThread, never cached.
struct ThreadState {
  FiberImpl* fiber = nullptr;
  ExecutorBase* executor = nullptr;
  void* worker = nullptr;  // the threaded executor's
  uint64_t spun = 0;       // by the fiber since it came to this thread: NoteSpun
};
ThreadState& ThisThread();

class ExecutorBase : public Executor {
 public:
  ParkResult ParkCurrent(FiberImpl& f, Time deadline);
  void YieldCurrent(FiberImpl& f);
  void UnparkSlow(FiberImpl& f) EXCLUDES(mu_);
  // A place where a fiber might have been preempted; the deterministic executor lets another run.
  virtual void Interleave(FiberImpl&) {}
  // See fiber.h.
  virtual bool WorkWaits(bool timers) { return false; }

 protected:
  ExecutorBase() : mu_(sync::Rank::kExecutor) {}
  ~ExecutorBase() override;

  // The lock, and the wake-ups that are made once it is released.
  void Lock() ACQUIRE(mu_) { mu_.Lock(); }
  void Unlock() RELEASE(mu_);
  void WakeAfterUnlock(Sleeper& sleeper) REQUIRES(mu_);

  class SCOPED_CAPABILITY Guard final {
   public:
    explicit Guard(ExecutorBase& e) ACQUIRE(e.mu_) : e_(e) { e_.Lock(); }
    ~Guard() RELEASE() { e_.Unlock(); }

   private:
    ExecutorBase& e_;
  };

  // The fiber may be run from now on.
  virtual void MakeReady(FiberImpl& f) REQUIRES(mu_) = 0;
  // A deadline was added that may be the earliest.
  virtual void TimerAdded() REQUIRES(mu_) {}
  // After every Unlock, without the lock.
  virtual void AfterUnlock() {}

  // Runs `f` on this thread until it leaves; then SettleLocked must follow.
  void Run(FiberImpl& f) EXCLUDES(mu_);
  // Does what the fiber that has just left asked for. Returns it if it has ended, for release without the lock.
  RefPtr<FiberImpl> Settle(FiberImpl& f) REQUIRES(mu_);
  // A fiber already taken off fibers_ will never run again: wakes of it do nothing from now on. Returns fibers_'
  // reference.
  RefPtr<FiberImpl> Abandon(FiberImpl& f) REQUIRES(mu_);
  // Makes fibers ready and calls back timers that are due at `now`; lets go of the lock meanwhile. True if any was due.
  bool FireTimers(Time now) REQUIRES(mu_);
  Time NextDeadline() REQUIRES(mu_) { return timers_.empty() ? kForever : timers_.begin()->deadline; }

  RefPtr<Fiber> SpawnWithLocal(std::function<void()> body, void* local, size_t stack_size) override EXCLUDES(mu_);
  void Arm(Timer& timer, Time deadline) override EXCLUDES(mu_);
  void Disarm(Timer& timer) override EXCLUDES(mu_);

  sync::Mutex mu_;
  TimerQueue timers_ GUARDED_BY(mu_);
  // All fibers that have not ended; each holds a reference.
  boost::intrusive::list<FiberImpl> fibers_ GUARDED_BY(mu_);
  std::vector<Sleeper*> joiners_ GUARDED_BY(mu_);

 private:
  static constexpr int kMaxWakes = 4;
  Sleeper* wakes_[kMaxWakes] GUARDED_BY(mu_) = {};
  int wake_count_ GUARDED_BY(mu_) = 0;
};

}  // namespace internal

struct Timer::Impl : internal::TimerNode, std::enable_shared_from_this<Timer::Impl> {
  std::function<void()> callback;
  // Guarded by the executor's lock.
  internal::ThreadState* running = nullptr;  // the thread that is in the callback
  Time rearm = kForever;                     // armed during the callback
  internal::Sleeper* waiting = nullptr;      // a Disarm that waits for the callback
};

}  // namespace redoubt::fiber

#endif  // REDOUBT_PKG_FIBER_EXECUTOR_BASE_H_
