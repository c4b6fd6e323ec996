// The executor for tests: one thread, virtual time, a seeded choice of the next fiber.
#include <utility>
#include <vector>

#include "pkg/fiber/executor_base.h"
#include "pkg/log/log.h"

namespace redoubt::fiber {
namespace internal {
namespace {

// Not zero, so that code that subtracts from now meets no surprise.
constexpr Time kStart = 1'000'000'000;

class DeterministicExecutorImpl final : public ExecutorBase {
 public:
  explicit DeterministicExecutorImpl(uint64_t seed) : random_(seed) {}
  ~DeterministicExecutorImpl() override;

  Time Now() override { return now_; }
  size_t RunUntilIdle(Time limit);
  // Another fiber may have been quicker.
  void Interleave(FiberImpl& f) override {
    if ((Random() & 1) != 0) YieldCurrent(f);
  }

 private:
  void EnterBlocking() override { YieldCurrent(*ThisThread().fiber); }
  void LeaveBlocking() override { YieldCurrent(*ThisThread().fiber); }
  void MakeReady(FiberImpl& f) override REQUIRES(mu_) { ready_.push_back(&f); }
  void JoinFibers() override { CHECK(RunUntilIdle(kForever) == 0, "deadlock: fibers are parked for ever"); }
  // splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
  uint64_t Random() {
    uint64_t z = random_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // Only the running thread touches these two.
  uint64_t random_;
  Time now_ = kStart;
  std::vector<FiberImpl*> ready_ GUARDED_BY(mu_);
};

DeterministicExecutorImpl::~DeterministicExecutorImpl() {
  std::vector<RefPtr<FiberImpl>> stuck;
  {
    Guard guard(*this);
    while (!fibers_.empty()) {
      FiberImpl& f = fibers_.front();
      fibers_.pop_front();
      stuck.push_back(Abandon(f));
    }
  }
}

size_t DeterministicExecutorImpl::RunUntilIdle(Time limit) NO_THREAD_SAFETY_ANALYSIS {
  ThreadState before = std::exchange(ThisThread(), ThreadState{.executor = this});
  CHECK(before.fiber == nullptr, "a fiber runs an executor");
  Lock();
  for (;;) {
    if (!ready_.empty()) {
      std::swap(ready_[Random() % ready_.size()], ready_.back());
      FiberImpl* f = ready_.back();
      ready_.pop_back();
      Unlock();
      Run(*f);
      Lock();
      RefPtr<FiberImpl> ended = Settle(*f);
      if (ended) {
        Unlock();
        ended.reset();
        Lock();
      }
      continue;
    }
    if (timers_.empty() || NextDeadline() > limit) break;
    now_ = std::max(now_, NextDeadline());
    FireTimers(now_);
  }
  size_t left = fibers_.size();
  Unlock();
  ThisThread() = before;
  return left;
}

}  // namespace
}  // namespace internal

std::unique_ptr<Executor> MakeDeterministicExecutor(uint64_t seed) {
  return std::make_unique<internal::DeterministicExecutorImpl>(seed);
}

size_t RunUntilIdle(Executor& deterministic, Time limit) {
  auto* executor = dynamic_cast<internal::DeterministicExecutorImpl*>(&deterministic);
  CHECK(executor != nullptr, "not a deterministic executor");
  return executor->RunUntilIdle(limit);
}

}  // namespace redoubt::fiber
