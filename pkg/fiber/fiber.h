// Fibers and their executor. A fiber is a stackful coroutine (Boost.Context); each guest thread is one, and the Sentry
// blocks nowhere else than in Park. Waking a fiber is a run-queue push, not a futex.
//
// An Executor runs fibers on a bounded number of OS threads at once (its slots). ThreadedExecutor is the real one;
// DeterministicExecutor runs the same code on the calling thread in virtual time, in an order drawn from a seed.
//
// A fiber may move between OS threads only at Park, Yield and fiber::Mutex; in between it is pinned. Thread-local variables
// must therefore not be cached across those.
#ifndef REDOUBT_PKG_FIBER_FIBER_H_
#define REDOUBT_PKG_FIBER_FIBER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>

#include "pkg/refs/refs.h"
#include "pkg/sync/annotations.h"

namespace redoubt::fiber {

// Nanoseconds of the executor's monotonic clock: the host's CLOCK_MONOTONIC, or virtual time.
using Time = int64_t;
inline constexpr Time kForever = std::numeric_limits<Time>::max();

class Executor;

// A running or parked computation. Counted: a waker may hold a reference longer than the fiber runs.
class Fiber : public RefCounted {
 public:
  // Makes the next (or current) Park of this fiber return. Wakes are not counted: several before a Park make one. Any
  // thread, any fiber, also after the fiber has ended; never blocks. Safe under any sync::Mutex.
  virtual void Unpark() = 0;
  // One pointer for the owner of the fiber (the kernel's Task). Set before it first runs.
  void* local = nullptr;
};

// The fiber that runs on this OS thread, or null outside any. Not inlined (see above).
Fiber* Current();
// The executor of the current fiber or, outside any fiber, of the thread (an Executor's thread). Null elsewhere.
Executor* CurrentExecutor();

enum class ParkResult { kUnparked, kTimedOut };
// Blocks the current fiber until Unpark or until the executor's clock reaches `deadline`. May wake spuriously: callers loop
// over their condition. No sync::Mutex may be held (checked).
ParkResult Park(Time deadline = kForever);
// Lets every other runnable fiber run first.
void Yield();
// The current executor's clock; the host's CLOCK_MONOTONIC outside any.
Time Now();

// While one exists, the current OS thread may block in the host (a ptrace wait, a host call without io_uring): its slot is
// lent to another thread. The fiber stays pinned to its OS thread. Not nested.
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

class Executor {
 public:
  virtual ~Executor() = default;

  // Starts a fiber that runs `body` and then ends. Any thread. `stack_size` in bytes, rounded up to pages, with a guard page
  // below it.
  RefPtr<Fiber> Spawn(std::function<void()> body, size_t stack_size = kDefaultStackSize) {
    return Spawn(std::move(body), nullptr, stack_size);
  }
  // As above with Fiber::local set to `local`.
  virtual RefPtr<Fiber> Spawn(std::function<void()> body, void* local, size_t stack_size) = 0;
  virtual Time Now() = 0;

  static constexpr size_t kDefaultStackSize = 256 << 10;

 private:
  friend class BlockingRegion;
  friend class Timer;
  virtual void EnterBlocking() = 0;
  virtual void LeaveBlocking() = 0;
  virtual void ArmTimer(Timer& timer, Time deadline) = 0;
  virtual void DisarmTimer(Timer& timer) = 0;
};

// Calls back once at a time of the executor's clock. Owned by whoever uses it; the callback runs on an executor thread, outside
// any fiber, must not block, and may re-arm. Disarm and the destructor return only when no callback is running (unless
// called from the callback itself).
class Timer final {
 public:
  Timer(Executor& executor, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Replaces any earlier deadline. A deadline in the past fires at once.
  void Arm(Time deadline);
  void Disarm();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  Executor& executor_;
  std::unique_ptr<Impl> impl_;
};

// The real executor.
class ThreadedExecutor {
 public:
  struct Options {
    int slots = 1;                // fibers that run at the same time
    int max_threads = 4096;       // OS threads, those inside BlockingRegions included
    const char* thread_name = "redoubt";
  };
  static std::unique_ptr<Executor> Create(const Options& options);
  // Runs until every fiber has ended, on the calling thread and those it starts.
};

// Blocks the calling OS thread (not a fiber) until all fibers of the executor have ended.
void Join(Executor& executor);

// The deterministic executor: one thread, virtual time that moves only when every fiber is parked, the next fiber drawn
// from `seed`. Run returns when all fibers have ended; a state where all are parked with no timer is a deadlock and is
// fatal, with the names of the parked fibers' count.
class DeterministicExecutor;
std::unique_ptr<Executor> MakeDeterministicExecutor(uint64_t seed);
void RunUntilIdle(Executor& deterministic);

// A mutex that may be held across Park and BlockingRegion. FIFO. Usable only from fibers.
class CAPABILITY("mutex") Mutex final {
 public:
  Mutex();
  ~Mutex();
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock() ACQUIRE();
  void Unlock() RELEASE();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
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
