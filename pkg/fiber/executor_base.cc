#include "pkg/fiber/executor_base.h"

#include "pkg/log/log.h"

namespace redoubt::fiber::internal {
namespace {

thread_local ThreadState thread_state;

}  // namespace

// No inlining, no inference: GCC would take a function that returns a thread-local's address for constant, and reuse
// the address on another thread.
[[gnu::noipa]] ThreadState& ThisThread() { return thread_state; }

FiberImpl::FiberImpl(ExecutorBase& executor, std::function<void()> body, size_t stack_size)
    : executor_(executor), body_(std::move(body)), stack_(stack_size) {
  timer_.fiber = this;
  context_.Prepare(stack_, &FiberImpl::Main, this);
}

void FiberImpl::Main(void* self) {
  auto* f = static_cast<FiberImpl*>(self);
  f->body_();
  f->body_ = nullptr;  // what it captured dies on the fiber's own stack
  f->SwitchOut(Leave::kEnd);
}

void FiberImpl::SwitchOut(Leave why) {
  leave_ = why;
  Context::Switch(context_, *scheduler_, why == Leave::kEnd ? Context::Leave::kForever : Context::Leave::kToReturn);
}

void FiberImpl::Unpark() {
  if (ended_.load(std::memory_order_acquire)) return;
  // Whoever finds the token there leaves the rest to the one who put it. Their writes are seen by the fiber all the
  // same: Park's exchange follows both in the token's modification order.
  if (token_.exchange(true, std::memory_order_acq_rel)) return;
  executor_.UnparkSlow(*this);
}

ExecutorBase::~ExecutorBase() { CHECK(timers_.empty(), "an executor died before its timers"); }

void ExecutorBase::Unlock() {
  Sleeper* wakes[kMaxWakes];
  int n = wake_count_;
  for (int i = 0; i < n; i++) wakes[i] = wakes_[i];
  wake_count_ = 0;
  mu_.Unlock();
  for (int i = 0; i < n; i++) wakes[i]->Wake();
  AfterUnlock();
}

void ExecutorBase::WakeAfterUnlock(Sleeper& sleeper) {
  if (wake_count_ == kMaxWakes) {
    sleeper.Wake();
    return;
  }
  wakes_[wake_count_++] = &sleeper;
}

ParkResult ExecutorBase::ParkCurrent(FiberImpl& f, Time deadline) {
  CHECK(sync::HeldMutexes() == 0, "a fiber parks with a sync::Mutex held");
  Interleave(f);
  if (f.token_.exchange(false, std::memory_order_acq_rel)) return ParkResult::kUnparked;
  f.deadline_ = deadline;
  f.SwitchOut(FiberImpl::Leave::kPark);
  return f.token_.exchange(false, std::memory_order_acq_rel) ? ParkResult::kUnparked : ParkResult::kTimedOut;
}

void ExecutorBase::YieldCurrent(FiberImpl& f) {
  CHECK(sync::HeldMutexes() == 0, "a fiber yields with a sync::Mutex held");
  f.SwitchOut(FiberImpl::Leave::kYield);
}

void ExecutorBase::UnparkSlow(FiberImpl& f) {
  Guard guard(*this);
  // If it is not parked, it has not yet looked at the token, or is ready to run already.
  if (!f.parked_) return;
  f.parked_ = false;
  if (f.timer_.is_linked()) timers_.erase(timers_.iterator_to(f.timer_));
  MakeReady(f);
}

void ExecutorBase::Run(FiberImpl& f) {
  Context here;
  f.scheduler_ = &here;
  ThisThread().fiber = &f;
  Context::Switch(here, f.context_, Context::Leave::kToReturn);
  ThisThread().fiber = nullptr;
}

RefPtr<FiberImpl> ExecutorBase::Settle(FiberImpl& f) {
  switch (f.leave_) {
    case FiberImpl::Leave::kYield:
      MakeReady(f);
      return nullptr;
    case FiberImpl::Leave::kPark:
      if (f.token_.load(std::memory_order_acquire)) {
        MakeReady(f);
        return nullptr;
      }
      f.parked_ = true;
      if (f.deadline_ != kForever) {
        f.timer_.deadline = f.deadline_;
        timers_.insert(f.timer_);
        TimerAdded();
      }
      return nullptr;
    case FiberImpl::Leave::kEnd:
      fibers_.erase(fibers_.iterator_to(f));
      if (fibers_.empty()) {
        for (Sleeper* joiner : joiners_) WakeAfterUnlock(*joiner);
        joiners_.clear();
      }
      return Abandon(f);
  }
  UNREACHABLE();
}

RefPtr<FiberImpl> ExecutorBase::Abandon(FiberImpl& f) {
  f.ended_.store(true, std::memory_order_release);
  if (f.timer_.is_linked()) timers_.erase(timers_.iterator_to(f.timer_));
  return RefPtr<FiberImpl>::Adopt(&f);
}

bool ExecutorBase::FireTimers(Time now) {
  bool any = false;
  while (!timers_.empty() && timers_.begin()->deadline <= now) {
    any = true;
    TimerNode& node = *timers_.begin();
    timers_.erase(timers_.begin());
    if (node.fiber != nullptr) {
      node.fiber->parked_ = false;
      MakeReady(*node.fiber);
      continue;
    }
    std::shared_ptr<Timer::Impl> timer = static_cast<Timer::Impl&>(node).shared_from_this();
    timer->running = &ThisThread();
    Unlock();
    timer->callback();
    Lock();
    timer->running = nullptr;
    if (timer->rearm != kForever) {
      timer->deadline = std::exchange(timer->rearm, kForever);
      timers_.insert(*timer);
      TimerAdded();
    }
    if (timer->waiting != nullptr) std::exchange(timer->waiting, nullptr)->Wake();
  }
  return any;
}

RefPtr<Fiber> ExecutorBase::SpawnWithLocal(std::function<void()> body, void* local, size_t stack_size) {
  auto f = MakeRef<FiberImpl>(*this, std::move(body), stack_size);
  f->local = local;
  Guard guard(*this);
  f->IncRef();  // fibers_'
  fibers_.push_back(*f);
  MakeReady(*f);
  return f;
}

void ExecutorBase::Arm(Timer& timer, Time deadline) {
  Timer::Impl& t = *timer.impl();
  Guard guard(*this);
  if (t.running != nullptr) {
    t.rearm = deadline;
    return;
  }
  if (t.is_linked()) timers_.erase(timers_.iterator_to(t));
  if (deadline == kForever) return;
  t.deadline = deadline;
  timers_.insert(t);
  TimerAdded();
}

void ExecutorBase::Disarm(Timer& timer) {
  Timer::Impl& t = *timer.impl();
  Sleeper done;
  for (;;) {
    {
      Guard guard(*this);
      t.rearm = kForever;
      if (t.is_linked()) timers_.erase(timers_.iterator_to(t));
      if (t.running == nullptr || t.running == &ThisThread()) return;
      CHECK(t.waiting == nullptr, "two threads disarm one timer");
      t.waiting = &done;
    }
    // Again, since the callback may arm it after our look.
    done.Wait(kForever);
  }
}

}  // namespace redoubt::fiber::internal
