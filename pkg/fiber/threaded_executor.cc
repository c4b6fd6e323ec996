// The executor on OS threads. A thread needs a slot to run a fiber; one that blocks in the host gives its slot away,
// and takes one again before its fiber goes on.
//
// Who watches the queue: whenever something is ready and a slot is free, at least one thread is `searching_`, that is
// awake and about to look, or a fiber is running that has made the only wake itself and will leave its thread to the
// woken one (see WakeForReady). Who watches the timers: whenever one is armed, a thread holds a slot or is searching
// (both look at the timers before they sleep), or the idle `timer_sleeper_` sleeps no longer than until the first.
// Who watches the event source: threads that are awake, between fibers and before they sleep; once none is, `asleep_`
// is announced and the idle `watcher_` sleeps on its descriptor.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <vector>

#include "pkg/fiber/executor_base.h"
#include "pkg/log/rate_limit.h"

namespace redoubt::fiber {
namespace internal {
namespace {

constexpr Time kIdleThreadLife = 1'000'000'000;
constexpr size_t kThreadStackSize = 512 << 10;
// How often fibers that come back from a BlockingRegion may take a free slot ahead of the queue. Without the privilege
// every short host call would cost a hand-over; without the bound the queue could starve.
constexpr int kMaxBarges = 32;
// Of the time-stamp counter, some 10 us and 50 us; and entries of the queue.
constexpr uint64_t kShortRun = 30'000;
constexpr uint64_t kWorthAWake = 150'000;
constexpr size_t kMaxWaiting = 4;

class ThreadedExecutorImpl final : public ExecutorBase {
 public:
  explicit ThreadedExecutorImpl(const ThreadedExecutor::Options& options) : options_(options), events_(options.events) {
    CHECK(options.slots > 0 && options.max_threads >= options.slots, "bad executor options");
    has_cpus_ = sched_getaffinity(0, sizeof(cpus_), &cpus_) == 0;
  }
  ~ThreadedExecutorImpl() override;

  Time Now() override { return HostNow(); }
  bool WorkWaits(bool timers) override {
    return ready_count_.load(std::memory_order_relaxed) > 0 ||
           (timers && next_deadline_.load(std::memory_order_relaxed) <= HostNow());
  }

 private:
  // An OS thread. Reused, never freed before the executor is: a wake-up may come late.
  struct Worker {
    explicit Worker(ThreadedExecutorImpl* e) : executor(e) {}
    ThreadedExecutorImpl* const executor;
    Sleeper sleeper;
    pthread_t thread{};
    bool started = false;             // `thread` is to be joined
    bool in_blocking_region = false;  // only its own thread looks
    // Guarded by the executor's lock.
    bool idle = false;
    bool granted = false;  // got the slot it waits for
    bool spun = false;     // has looked for events since it last ran a fiber; only its own thread looks
    Time sleeps_until = kForever;
  };
  // Wants a slot: a fiber that can run, or the thread of one that comes back from a BlockingRegion.
  struct Ready {
    FiberImpl* fiber;
    Worker* worker;
  };

  void EnterBlocking() override EXCLUDES(mu_);
  void LeaveBlocking() override EXCLUDES(mu_);
  void JoinFibers() override EXCLUDES(mu_);
  void MakeReady(FiberImpl& f) override REQUIRES(mu_);
  void TimerAdded() override REQUIRES(mu_);
  void AfterUnlock() override;

  bool SlotFree() REQUIRES(mu_) { return slots_used_ < options_.slots; }
  // Sees to it that enough threads are awake for the queue, less `deferred` entries that this thread will see to.
  void WakeForReady(size_t deferred) REQUIRES(mu_);
  void WatchTimers() REQUIRES(mu_);
  bool WakeOne() REQUIRES(mu_);
  void WakeIdle(Worker& w) REQUIRES(mu_);
  // Hands free slots to the threads at the front of the queue.
  void GrantSlots() REQUIRES(mu_);
  void NoteReady() REQUIRES(mu_);
  // How many entries of the queue may wait for a thread that will look at it in a moment.
  size_t MayWait() REQUIRES(mu_);
  // Some thread is awake from now on.
  void Awake() REQUIRES(mu_);
  bool AnyAwake() REQUIRES(mu_) { return slots_used_ > 0 || searching_ > 0; }
  // Looks for events for as long as the source finds it worth while, unless another thread does. True if it looked.
  bool SpinForEvents(Worker& w) REQUIRES(mu_);
  void StartThread(Worker& w);
  static void* ThreadMain(void* worker);
  void Loop(Worker& w) EXCLUDES(mu_);
  void ThreadEnds(Worker& w) REQUIRES(mu_);
  // False if the thread is to end.
  bool Sleep(Worker& w) REQUIRES(mu_);

  const ThreadedExecutor::Options options_;
  // What every thread may use at first: not what the thread that starts it may, which can be tied to a processor for a
  // while.
  cpu_set_t cpus_{};
  bool has_cpus_ = false;
  EventSource* const events_;
  std::deque<Ready> ready_ GUARDED_BY(mu_);
  // What WorkWaits reads without the lock.
  std::atomic<size_t> ready_count_{0};
  std::atomic<Time> next_deadline_{kForever};
  // Of the processor's time-stamp counter: since when the queue has not been empty; how long fibers run before they
  // leave their thread, averaged.
  uint64_t waits_since_ GUARDED_BY(mu_) = 0;
  uint64_t average_run_ GUARDED_BY(mu_) = 0;
  bool asleep_ GUARDED_BY(mu_) = false;        // announced to the event source
  bool spinning_ GUARDED_BY(mu_) = false;      // a thread is in SpinForEvents
  Worker* watcher_ GUARDED_BY(mu_) = nullptr;  // sleeps on the event source's descriptor
  int slots_used_ GUARDED_BY(mu_) = 0;
  int searching_ GUARDED_BY(mu_) = 0;
  int barges_ GUARDED_BY(mu_) = 0;
  int threads_ GUARDED_BY(mu_) = 0;
  bool stop_ GUARDED_BY(mu_) = false;
  Sleeper* stopper_ GUARDED_BY(mu_) = nullptr;  // the destructor, waiting for the threads
  Worker* timer_sleeper_ GUARDED_BY(mu_) = nullptr;
  std::vector<Worker*> idle_ GUARDED_BY(mu_);  // the most recent at the back
  std::vector<std::unique_ptr<Worker>> workers_ GUARDED_BY(mu_);
  std::vector<Worker*> unused_ GUARDED_BY(mu_);  // their threads have ended, or are about to
  std::vector<Worker*> to_start_ GUARDED_BY(mu_);
  std::atomic<bool> any_to_start_{false};  // so that AfterUnlock need not lock again
};

// The worker of the calling thread if it belongs to `executor`.
void* WorkerOf(const ExecutorBase* executor) {
  ThreadState& t = ThisThread();
  return t.executor == executor ? t.worker : nullptr;
}

ThreadedExecutorImpl::~ThreadedExecutorImpl() NO_THREAD_SAFETY_ANALYSIS {
  {
    Guard guard(*this);
    CHECK(fibers_.empty(), "an executor died before its fibers");
    stop_ = true;
    while (!idle_.empty()) WakeIdle(*idle_.back());
  }
  Sleeper stopped;
  bool wait;
  {
    Guard guard(*this);
    wait = threads_ > 0;
    stopper_ = &stopped;
  }
  if (wait) stopped.Wait(kForever);
  // Now no thread starts another; they have only to return.
  for (auto& w : workers_) {
    if (w->started) pthread_join(w->thread, nullptr);
  }
}

void ThreadedExecutorImpl::ThreadEnds(Worker& w) {
  unused_.push_back(&w);
  if (--threads_ == 0 && stopper_ != nullptr) WakeAfterUnlock(*stopper_);
}

void ThreadedExecutorImpl::NoteReady() {
  if (ready_.empty()) {
    waits_since_ = 0;
  } else if (waits_since_ == 0) {
    waits_since_ = __builtin_ia32_rdtsc();
  }
  ready_count_.store(ready_.size(), std::memory_order_relaxed);
}

size_t ThreadedExecutorImpl::MayWait() {
  // Waking a thread costs as much as many short runs. But if the queue does not get empty in the time that a wake-up
  // takes, another thread is worth its price.
  bool short_runs = events_ != nullptr && average_run_ < kShortRun;
  return short_runs && __builtin_ia32_rdtsc() - waits_since_ < kWorthAWake ? kMaxWaiting : 1;
}

void ThreadedExecutorImpl::MakeReady(FiberImpl& f) {
  ready_.push_back({&f, nullptr});
  NoteReady();
  auto* self = static_cast<Worker*>(WorkerOf(this));
  bool looks_soon = self != nullptr && !self->in_blocking_region;
  WakeForReady(looks_soon ? MayWait() : 0);
}

void ThreadedExecutorImpl::TimerAdded() {
  next_deadline_.store(NextDeadline(), std::memory_order_relaxed);
  WatchTimers();
}

void ThreadedExecutorImpl::Awake() {
  if (!asleep_) return;
  asleep_ = false;
  events_->SetAsleep(false);
}

void ThreadedExecutorImpl::WakeForReady(size_t deferred) {
  if (ready_.size() <= deferred) return;
  size_t wanted = std::min(ready_.size() - deferred, static_cast<size_t>(options_.slots - slots_used_));
  while (static_cast<size_t>(searching_) < wanted && WakeOne()) {
  }
}

void ThreadedExecutorImpl::WatchTimers() {
  if (timers_.empty() || slots_used_ > 0 || searching_ > 0) return;
  if (timer_sleeper_ == nullptr) {
    WakeOne();
  } else if (timer_sleeper_->sleeps_until > NextDeadline()) {
    WakeIdle(*timer_sleeper_);
  }
}

bool ThreadedExecutorImpl::WakeOne() {
  if (!idle_.empty()) {
    Worker* w = idle_.back();
    if (w == timer_sleeper_ && idle_.size() > 1) w = idle_[idle_.size() - 2];
    WakeIdle(*w);
    return true;
  }
  if (threads_ >= options_.max_threads || stop_) return false;
  Worker* w;
  if (!unused_.empty()) {
    w = unused_.back();
    unused_.pop_back();
  } else {
    workers_.push_back(std::make_unique<Worker>(this));
    w = workers_.back().get();
  }
  threads_++;
  searching_++;
  Awake();
  to_start_.push_back(w);
  any_to_start_.store(true, std::memory_order_relaxed);
  return true;
}

void ThreadedExecutorImpl::WakeIdle(Worker& w) {
  idle_.erase(std::find(idle_.begin(), idle_.end(), &w));
  w.idle = false;
  if (timer_sleeper_ == &w) timer_sleeper_ = nullptr;
  searching_++;
  Awake();
  WakeAfterUnlock(w.sleeper);
}

void ThreadedExecutorImpl::GrantSlots() {
  while (SlotFree() && !ready_.empty() && ready_.front().worker != nullptr) {
    Worker* w = ready_.front().worker;
    ready_.pop_front();
    NoteReady();
    slots_used_++;
    Awake();
    barges_ = 0;
    w->granted = true;
    WakeAfterUnlock(w->sleeper);
  }
}

void ThreadedExecutorImpl::AfterUnlock() {
  while (any_to_start_.load(std::memory_order_relaxed)) {
    Worker* w = nullptr;
    mu_.Lock();
    if (!to_start_.empty()) {
      w = to_start_.back();
      to_start_.pop_back();
    }
    any_to_start_.store(!to_start_.empty(), std::memory_order_relaxed);
    mu_.Unlock();
    if (w != nullptr) StartThread(*w);
  }
}

void ThreadedExecutorImpl::StartThread(Worker& w) {
  if (w.started) pthread_join(w.thread, nullptr);  // it has only to return
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, kThreadStackSize);
  int error = pthread_create(&w.thread, &attr, &ThreadedExecutorImpl::ThreadMain, &w);
  pthread_attr_destroy(&attr);
  w.started = error == 0;
  if (w.started) return;
  // The others do the work, as at max_threads.
  LOG_WARNING_LIMITED("cannot start an OS thread: errno {}", error);
  Guard guard(*this);
  searching_--;
  ThreadEnds(w);
  CHECK(threads_ > 0 || stop_, "cannot start the first OS thread");
}

void* ThreadedExecutorImpl::ThreadMain(void* worker) {
  auto* w = static_cast<Worker*>(worker);
  pthread_setname_np(pthread_self(), w->executor->options_.thread_name);
  if (w->executor->has_cpus_) (void)sched_setaffinity(0, sizeof(cpu_set_t), &w->executor->cpus_);
  ThreadState& t = ThisThread();
  t.executor = w->executor;
  t.worker = w;
  w->executor->Loop(*w);
  return nullptr;
}

void ThreadedExecutorImpl::Loop(Worker& w) NO_THREAD_SAFETY_ANALYSIS {
  Lock();
  for (;;) {
    if (!timers_.empty()) FireTimers(HostNow());
    next_deadline_.store(NextDeadline(), std::memory_order_relaxed);  // also after one was disarmed
    GrantSlots();
    if (SlotFree() && !ready_.empty()) {
      FiberImpl* f = ready_.front().fiber;
      ready_.pop_front();
      NoteReady();
      slots_used_++;
      barges_ = 0;
      searching_--;
      WakeForReady(ready_.empty() ? 0 : MayWait() - 1);
      Unlock();
      ThisThread().spun = 0;
      const uint64_t began = __builtin_ia32_rdtsc();
      Run(*f);
      const uint64_t took = __builtin_ia32_rdtsc() - began - ThisThread().spun;
      CHECK(!w.in_blocking_region, "a fiber left its thread inside a BlockingRegion");
      if (events_ != nullptr) events_->Poll();
      w.spun = false;
      Lock();
      average_run_ = average_run_ - average_run_ / 8 + took / 8;
      slots_used_--;
      searching_++;
      RefPtr<FiberImpl> ended = Settle(*f);
      if (ended) {
        Unlock();
        ended.reset();
        Lock();
      }
      continue;
    }
    if (SpinForEvents(w)) continue;
    if (!Sleep(w)) break;
  }
  Unlock();
}

bool ThreadedExecutorImpl::SpinForEvents(Worker& w) NO_THREAD_SAFETY_ANALYSIS {
  if (events_ == nullptr || w.spun || spinning_ || stop_) return false;
  w.spun = true;
  Time budget = events_->SpinTime();
  if (budget <= 0) return false;
  spinning_ = true;
  Unlock();
  const Time end = HostNow() + budget;
  do {
    if (events_->Poll() || WorkWaits(true)) break;
    for (int i = 0; i < 16; i++) __builtin_ia32_pause();
  } while (HostNow() < end);
  Lock();
  spinning_ = false;
  return true;
}

bool ThreadedExecutorImpl::Sleep(Worker& w) NO_THREAD_SAFETY_ANALYSIS {
  searching_--;
  if (stop_) {
    ThreadEnds(w);
    return false;
  }
  if (events_ != nullptr && !asleep_ && !AnyAwake()) {
    asleep_ = true;
    events_->SetAsleep(true);
    // An event that came before the announcement has waked nobody.
    searching_++;
    Unlock();
    events_->Poll();
    Lock();
    searching_--;
    if (!ready_.empty() || stop_) {
      searching_++;
      Awake();
      return true;
    }
    // Somebody may have become awake and have gone again; the announcement stands only if nobody is.
    if (AnyAwake()) Awake();
  }
  w.idle = true;
  w.spun = false;
  idle_.push_back(&w);
  const bool watch = events_ != nullptr && watcher_ == nullptr;
  if (watch) watcher_ = &w;
  bool retires = false;
  w.sleeps_until = kForever;
  if (!timers_.empty() && (timer_sleeper_ == nullptr || timer_sleeper_->sleeps_until > NextDeadline())) {
    timer_sleeper_ = &w;
    w.sleeps_until = NextDeadline();
  } else if (!watch && idle_.size() > static_cast<size_t>(options_.slots)) {
    retires = true;
    w.sleeps_until = HostNow() + kIdleThreadLife;
  }
  Unlock();
  bool woken = watch ? w.sleeper.WaitFor(*events_, w.sleeps_until) : w.sleeper.Wait(w.sleeps_until);
  if (watch) events_->Drain();
  Lock();
  // Not before: of two threads on one descriptor, one would take the other's wake.
  if (watch) watcher_ = nullptr;
  if (!w.idle) return true;  // the waker has counted it as searching
  idle_.erase(std::find(idle_.begin(), idle_.end(), &w));
  w.idle = false;
  if (timer_sleeper_ == &w) timer_sleeper_ = nullptr;
  if (retires && !woken && ready_.empty() && idle_.size() >= static_cast<size_t>(options_.slots)) {
    ThreadEnds(w);
    return false;
  }
  searching_++;
  Awake();
  return true;
}

void ThreadedExecutorImpl::EnterBlocking() {
  auto* w = static_cast<Worker*>(WorkerOf(this));
  CHECK(w != nullptr && !w->in_blocking_region, "BlockingRegions do not nest");
  w->in_blocking_region = true;
  bool announced = false;
  {
    Guard guard(*this);
    slots_used_--;
    GrantSlots();
    WakeForReady(0);
    WatchTimers();
    if (events_ != nullptr && !AnyAwake()) {
      if (watcher_ != nullptr) {
        announced = !asleep_;
        asleep_ = true;
        events_->SetAsleep(true);
      } else {
        (void)WakeOne();  // to become the watcher
      }
    }
  }
  // An event that came before the announcement has waked nobody.
  if (announced) events_->Poll();
}

void ThreadedExecutorImpl::LeaveBlocking() NO_THREAD_SAFETY_ANALYSIS {
  auto* w = static_cast<Worker*>(WorkerOf(this));
  Lock();
  if (SlotFree() && (ready_.empty() || barges_ < kMaxBarges)) {
    slots_used_++;
    Awake();
    if (!ready_.empty()) barges_++;
  } else {
    w->granted = false;
    ready_.push_back({nullptr, w});
    NoteReady();
    GrantSlots();
    WakeForReady(0);
    while (!w->granted) {
      Unlock();
      w->sleeper.Wait(kForever);
      Lock();
    }
  }
  w->in_blocking_region = false;
  Unlock();
}

void ThreadedExecutorImpl::JoinFibers() {
  Sleeper done;
  {
    Guard guard(*this);
    if (fibers_.empty()) return;
    joiners_.push_back(&done);
  }
  done.Wait(kForever);
}

}  // namespace
}  // namespace internal

std::unique_ptr<Executor> ThreadedExecutor::Create(const Options& options) {
  return std::make_unique<internal::ThreadedExecutorImpl>(options);
}

}  // namespace redoubt::fiber
