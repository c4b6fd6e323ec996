// Fibers and their executor. A fiber is a stackful coroutine (Boost.Context); each guest thread is one, and the Sentry
// blocks nowhere else than in Park. Waking a fiber is a run-queue push, not a futex.
//
// An Executor runs fibers on a bounded number of OS threads at once (its slots). ThreadedExecutor is the real one;
// the deterministic one runs the same code on the calling thread in virtual time, in an order drawn from a seed.
//
// A fiber may move between OS threads only at Park, Yield and fiber::Mutex; in between, BlockingRegions included, it is
// pinned. Thread-local variables must therefore not be cached across those.
#ifndef REDOUBT_PKG_FIBER_FIBER_H_
#define REDOUBT_PKG_FIBER_FIBER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "pkg/fiber/event_source.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/annotations.h"
#include "pkg/sync/mutex.h"

namespace redoubt::fiber {

// Nanoseconds of the executor's monotonic clock: the host's CLOCK_MONOTONIC, or virtual time.
using Time = int64_t;
inline constexpr Time kForever = std::numeric_limits<Time>::max();

class Executor;

// A running or parked computation. Counted: a waker may hold a reference longer than the fiber runs.
class Fiber : public RefCounted {
 public:
  // Makes the next (or current) Park of this fiber return. Wakes are not counted: several before a Park make one. Any
  // thread, any fiber, also after the fiber has ended; never blocks. Safe under any sync::Mutex. Fibers of a
  // deterministic executor are unparked only from the thread that runs it.
  virtual void Unpark() = 0;
  // One pointer for the owner of the fiber (the kernel's Task). Set before it first runs.
  void* local = nullptr;
};

// The fiber that runs on this OS thread, or null outside any. Not inlined (see above).
Fiber* Current();
// The executor of the current fiber or, outside any fiber, of the thread (an Executor's thread). Null elsewhere.
Executor* CurrentExecutor();

enum class ParkResult { kUnparked, kTimedOut };
// Blocks the current fiber until Unpark or until the executor's clock reaches `deadline`. May wake spuriously: callers
// loop over their condition. No sync::Mutex may be held (checked).
ParkResult Park(Time deadline = kForever);
// Lets every other runnable fiber run first.
void Yield();
// The current executor's clock; the host's CLOCK_MONOTONIC outside any.
Time Now();

// Calls `f` when the current OS thread ends, after those registered later; for what belongs to an OS thread, such as
// the processes it traces. Runs outside any fiber. Any thread.
void AtThreadExit(std::function<void()> f);

// While one exists, the current OS thread may block in the host (a ptrace wait, a host call without io_uring): its slot
// is lent to another thread. The fiber stays pinned to its OS thread, and must not Park. Not nested. Nothing happens
// outside any fiber. No sync::Mutex may be held (checked).
class BlockingRegion final {
 public:
  BlockingRegion();
  ~BlockingRegion();
  BlockingRegion(const BlockingRegion&) = delete;
  BlockingRegion& operator=(const BlockingRegion&) = delete;

 private:
  Executor* executor_;
};

class Timer;

// Whether the current thread's executor has a fiber to run or a timer that is due: who spins for something else should
// park. Timers, which cost a look at the clock, only if asked. False outside any executor.
bool WorkWaits(bool timers);

// Tells the executor that the current fiber has spun for so many cycles of the time-stamp counter: it was not at work.
void NoteSpun(uint64_t cycles);

// Destroyed only when all its fibers have ended and no Timer is left (fatal otherwise), from none of its threads.
class Executor {
 public:
  virtual ~Executor() = default;

  // Starts a fiber that runs `body` and then ends. Any thread. `stack_size` in bytes, rounded up to pages, with a guard
  // page below it.
  RefPtr<Fiber> Spawn(std::function<void()> body, size_t stack_size = kDefaultStackSize) {
    return SpawnWithLocal(std::move(body), nullptr, stack_size);
  }
  // As above with Fiber::local set to `local`.
  RefPtr<Fiber> Spawn(std::function<void()> body, void* local, size_t stack_size) {
    return SpawnWithLocal(std::move(body), local, stack_size);
  }
  virtual Time Now() = 0;

  static constexpr size_t kDefaultStackSize = 256 << 10;

 private:
  friend class BlockingRegion;
  friend class Timer;
  friend void Join(Executor& executor);
  virtual RefPtr<Fiber> SpawnWithLocal(std::function<void()> body, void* local, size_t stack_size) = 0;
  virtual void EnterBlocking() = 0;
  virtual void LeaveBlocking() = 0;
  virtual void Arm(Timer& timer, Time deadline) = 0;
  virtual void Disarm(Timer& timer) = 0;
  virtual void JoinFibers() = 0;
};

// Calls back once at a time of the executor's clock. Owned by whoever uses it; the callback runs on an executor thread,
// outside any fiber, must not block, and may re-arm. Disarm and the destructor return only when no callback is running
// (unless called from the callback itself), so the caller must hold no lock that the callback takes. Calls to one Timer
// are serialized by its owner, the callback's own excepted.
class Timer final {
 public:
  Timer(Executor& executor, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Replaces any earlier deadline. A deadline in the past fires at once (not in this call).
  void Arm(Time deadline);
  void Disarm();

  struct Impl;
  const std::shared_ptr<Impl>& impl() { return impl_; }

 private:
  Executor& executor_;
  std::shared_ptr<Impl> impl_;  // shared with a callback that destroys its Timer
};

// The real executor. A wake made by a running fiber may be acted on only when that fiber parks, yields or enters a
// BlockingRegion, so no fiber may spin until another has run.
class ThreadedExecutor {
 public:
  struct Options {
    int slots = 1;           // fibers that run at the same time
    int max_threads = 4096;  // OS threads, those inside BlockingRegions included
    const char* thread_name = "redoubt";
    EventSource* events = nullptr;
  };
  // Threads are started when there is something to run, and end after a second without work, except the last `slots`
  // idle ones. The most recently idle thread is used first.
  static std::unique_ptr<Executor> Create(const Options& options);
};

// Blocks the calling OS thread (not a fiber) until all fibers of the executor have ended. A deterministic executor is
// run, and a deadlock is fatal.
void Join(Executor& executor);

// The deterministic executor: virtual time moves only when no fiber can run; the next fiber is drawn from `seed`.
// Parks, yields, BlockingRegions and fiber::Mutex are the points where another may be chosen.
std::unique_ptr<Executor> MakeDeterministicExecutor(uint64_t seed);
// Runs a deterministic executor on the calling thread until no fiber can run and no timer is armed for a time up to
// `limit`. Returns how many fibers have not ended: parked for ever, or until after `limit`. An executor may be
// destroyed with such; their stacks are then dropped without unwinding.
size_t RunUntilIdle(Executor& deterministic, Time limit = kForever);

// A mutex that may be held across Park and BlockingRegion. FIFO. For fibers; outside any it may be taken only while
// nobody else has it (single-threaded tests).
class CAPABILITY("mutex") Mutex final {
 public:
  Mutex() = default;
  ~Mutex();
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock() ACQUIRE();
  bool TryLock() TRY_ACQUIRE(true);
  void Unlock() RELEASE();
  // Whether the current fiber holds it.
  bool HeldByCurrent();

 private:
  bool TakeOrQueue(const void* self);
  bool Owns(const void* self);

  sync::Mutex mu_{sync::Rank::kFiberMutex};
  const void* owner_ GUARDED_BY(mu_) = nullptr;
  std::vector<Fiber*> waiters_ GUARDED_BY(mu_);  // alive while parked here
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

}  // namespace redoubt::fiber

#endif  // REDOUBT_PKG_FIBER_FIBER_H_
