#include "pkg/fiber/fiber.h"

#include <algorithm>
#include <utility>

#include "pkg/fiber/executor_base.h"
#include "pkg/log/log.h"

namespace redoubt::fiber {
namespace {

using internal::FiberImpl;
using internal::ThisThread;

struct ExitCalls {
  std::vector<std::function<void()>> calls;
  ~ExitCalls() {
    while (!calls.empty()) {
      std::function<void()> f = std::move(calls.back());
      calls.pop_back();
      f();
    }
  }
};

FiberImpl& MustBeFiber() {
  FiberImpl* f = ThisThread().fiber;
  CHECK(f != nullptr, "only a fiber can do this");
  return *f;
}

// Who locks a fiber::Mutex: a fiber or, outside any, the thread.
const void* Self() {
  internal::ThreadState& t = ThisThread();
  if (t.fiber != nullptr) return t.fiber;
  return &t;
}

void Interleave() {
  internal::ThreadState& t = ThisThread();
  if (t.fiber != nullptr) t.executor->Interleave(*t.fiber);
}

}  // namespace

Fiber* Current() { return ThisThread().fiber; }
Executor* CurrentExecutor() { return ThisThread().executor; }

ParkResult Park(Time deadline) {
  FiberImpl& f = MustBeFiber();
  return ThisThread().executor->ParkCurrent(f, deadline);
}

void Yield() {
  FiberImpl& f = MustBeFiber();
  ThisThread().executor->YieldCurrent(f);
}

Time Now() {
  Executor* executor = CurrentExecutor();
  return executor != nullptr ? executor->Now() : internal::HostNow();
}

bool WorkWaits(bool timers) {
  internal::ExecutorBase* executor = ThisThread().executor;
  return executor != nullptr && executor->WorkWaits(timers);
}

void NoteSpun(uint64_t cycles) { ThisThread().spun += cycles; }

void AtThreadExit(std::function<void()> f) {
  static thread_local ExitCalls exit_calls;
  exit_calls.calls.push_back(std::move(f));
}

BlockingRegion::BlockingRegion() : executor_(Current() != nullptr ? CurrentExecutor() : nullptr) {
  if (executor_ == nullptr) return;
  CHECK(sync::HeldMutexes() == 0, "a fiber blocks in the host with a sync::Mutex held");
  executor_->EnterBlocking();
}

BlockingRegion::~BlockingRegion() {
  if (executor_ != nullptr) executor_->LeaveBlocking();
}

Timer::Timer(Executor& executor, std::function<void()> callback)
    : executor_(executor), impl_(std::make_shared<Impl>()) {
  impl_->callback = std::move(callback);
}

Timer::~Timer() { Disarm(); }

void Timer::Arm(Time deadline) { executor_.Arm(*this, deadline); }

void Timer::Disarm() { executor_.Disarm(*this); }

void Join(Executor& executor) {
  CHECK(Current() == nullptr, "a fiber cannot join its executor");
  executor.JoinFibers();
}

Mutex::~Mutex() { CHECK(owner_ == nullptr, "a locked fiber::Mutex died"); }

bool Mutex::TakeOrQueue(const void* self) {
  sync::MutexLock lock(mu_);
  if (owner_ == nullptr) {
    owner_ = self;
    return true;
  }
  CHECK(owner_ != self, "a fiber::Mutex is not recursive");
  waiters_.push_back(&MustBeFiber());
  return false;
}

bool Mutex::Owns(const void* self) {
  sync::MutexLock lock(mu_);
  return owner_ == self;
}

void Mutex::Lock() NO_THREAD_SAFETY_ANALYSIS {
  CHECK(sync::HeldMutexes() == 0, "a fiber::Mutex is taken under a sync::Mutex");
  Interleave();
  const void* self = Self();
  if (TakeOrQueue(self)) return;
  // Unlock hands the mutex over before it wakes, so a spurious wake changes nothing.
  do {
    Park();
  } while (!Owns(self));
  // A Park above may have taken a wake meant for a loop further up the stack, which then must look again.
  Current()->Unpark();
}

bool Mutex::TryLock() NO_THREAD_SAFETY_ANALYSIS {
  sync::MutexLock lock(mu_);
  if (owner_ != nullptr) return false;
  owner_ = Self();
  return true;
}

void Mutex::Unlock() NO_THREAD_SAFETY_ANALYSIS {
  sync::MutexLock lock(mu_);
  CHECK(owner_ == Self(), "a fiber::Mutex is unlocked by another than its owner");
  if (waiters_.empty()) {
    owner_ = nullptr;
    return;
  }
  Fiber* next = waiters_.front();
  waiters_.erase(waiters_.begin());
  owner_ = static_cast<FiberImpl*>(next);
  // Under the lock: afterwards the fiber may have ended.
  next->Unpark();
}

bool Mutex::HeldByCurrent() { return Owns(Self()); }

}  // namespace redoubt::fiber
