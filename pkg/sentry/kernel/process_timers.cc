#include "pkg/sentry/kernel/process_timers.h"

#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <vector>

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::kernel {
namespace {

// CPU time of a process so far.
CpuTimes ProcessCpu(ThreadGroup& group) {
  CpuTimes total;
  std::vector<RefPtr<Task>> tasks;
  {
    sync::MutexLock lock(group.kernel().mu);
    total = group.usage.cpu;
    for (Task* t : group.tasks) tasks.emplace_back(t);
  }
  for (auto& t : tasks) total += t->GetUsage().cpu;
  return total;
}

}  // namespace

// One timer of either kind. Its own lock is innermost; the expiry sends the signal without it.
class ProcessTimers::OneTimer {
 public:
  // `owner`: whom it has been charged to.
  OneTimer(ThreadGroup& group, clockid_t clock, bool user_time_only, siginfo_t info, RefPtr<Task> notify,
           std::optional<uint32_t> owner = std::nullopt)
      : group_(group),
        clock_(clock),
        user_time_only_(user_time_only),
        info_(info),
        notify_(std::move(notify)),
        owner_(owner),
        timer_(group.kernel().executor(), [this] { Expired(); }) {}
  ~OneTimer() {
    timer_.Disarm();
    if (owner_) limits::PendingSignalsOfUsers().Uncharge(*owner_, 1);
  }

  int64_t Now() const {
    switch (clock_) {
      case CLOCK_REALTIME:
      case CLOCK_TAI:
        return clock::Realtime();
      case CLOCK_BOOTTIME:
        return clock::Boottime();
      case CLOCK_PROCESS_CPUTIME_ID: {
        CpuTimes cpu = ProcessCpu(group_);
        return static_cast<int64_t>(user_time_only_ ? cpu.user : cpu.user + cpu.system);
      }
      default:
        return clock::Monotonic();
    }
  }

  TimerSetting Get() {
    int64_t now = Now();
    sync::MutexLock lock(mu_);
    return Remaining(now);
  }

  TimerSetting Set(TimerSetting setting, bool absolute) {
    int64_t now = Now();
    TimerSetting old;
    int64_t expiry = 0;
    {
      sync::MutexLock lock(mu_);
      old = Remaining(now);
      interval_ = setting.interval;
      expiry_ = setting.value == 0 ? 0 : absolute ? std::max<int64_t>(setting.value, 1) : Saturate(now, setting.value);
      last_overrun_ = 0;
      expiry = expiry_;
    }
    if (expiry == 0) {
      timer_.Disarm();
    } else {
      Rearm(expiry, now);
    }
    return old;
  }

  void Stop() {
    {
      sync::MutexLock lock(mu_);
      expiry_ = 0;
    }
    timer_.Disarm();
  }

  int overrun() {
    sync::MutexLock lock(mu_);
    return last_overrun_;
  }

 private:
  static int64_t Saturate(int64_t a, int64_t b) {
    int64_t sum = 0;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
  }

  TimerSetting Remaining(int64_t now) REQUIRES(mu_) {
    if (expiry_ == 0) return {.value = 0, .interval = interval_};
    return {.value = std::max<int64_t>(expiry_ - now, 1), .interval = interval_};
  }

  // CPU time passes no faster than the process's threads times real time; with the distance as real time the timer may
  // come too early with one thread and looks again, and too late by at most a few rounds with several.
  void Rearm(int64_t expiry, int64_t now) {
    int64_t distance = std::max<int64_t>(expiry - now, 0);
    if (clock_ == CLOCK_PROCESS_CPUTIME_ID) distance = std::max<int64_t>(distance / 2, 1'000'000);
    timer_.Arm(Saturate(group_.kernel().executor().Now(), distance));
  }

  void Expired() {
    int64_t now = Now();
    int64_t next = 0;
    bool fire = false;
    {
      sync::MutexLock lock(mu_);
      if (expiry_ == 0) return;
      if (expiry_ <= now) {
        fire = true;
        last_overrun_ = 0;
        if (interval_ > 0) {
          int64_t missed = (now - expiry_) / interval_;
          last_overrun_ = static_cast<int>(std::min<int64_t>(missed, INT32_MAX));
          expiry_ = Saturate(expiry_, (missed + 1) * interval_);
        } else {
          expiry_ = 0;
        }
        info_.si_overrun = info_.si_code == SI_TIMER ? last_overrun_ : info_.si_overrun;
      }
      next = expiry_;
    }
    if (next != 0) Rearm(next, now);
    if (!fire || info_.si_signo == 0) return;
    Kernel& kernel = group_.kernel();
    sync::MutexLock lock(kernel.mu);
    (void)kernel.SendLocked(group_, notify_.get(), info_);
  }

  ThreadGroup& group_;
  const clockid_t clock_;
  const bool user_time_only_;
  siginfo_t info_;  // si_signo 0: SIGEV_NONE
  const RefPtr<Task> notify_;
  const std::optional<uint32_t> owner_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  int64_t expiry_ GUARDED_BY(mu_) = 0;  // of clock_; 0: disarmed
  int64_t interval_ GUARDED_BY(mu_) = 0;
  int last_overrun_ GUARDED_BY(mu_) = 0;
  fiber::Timer timer_;  // last: its callback uses the rest
};

ProcessTimers::ProcessTimers(ThreadGroup& group) : group_(group) {}
ProcessTimers::~ProcessTimers() = default;

TimerSetting ProcessTimers::GetItimer(int which) {
  OneTimer* timer = nullptr;
  {
    sync::MutexLock lock(mu_);
    timer = itimers_[which].get();
  }
  return timer != nullptr ? timer->Get() : TimerSetting{};
}

TimerSetting ProcessTimers::SetItimer(int which, TimerSetting setting) {
  constexpr int kSignals[] = {SIGALRM, SIGVTALRM, SIGPROF};
  OneTimer* timer = nullptr;
  {
    sync::MutexLock lock(mu_);
    if (!itimers_[which]) {
      clockid_t clock = which == ITIMER_REAL ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID;
      itimers_[which] = std::make_unique<OneTimer>(group_, clock, which == ITIMER_VIRTUAL,
                                                   MakeSigInfo(kSignals[which], SI_KERNEL), nullptr);
    }
    timer = itimers_[which].get();  // never removed before the process ends
  }
  return timer->Set(setting, false);
}

Result<int> ProcessTimers::Create(clockid_t clock, const struct sigevent& event, Task* notify) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
    case CLOCK_TAI:
    case CLOCK_PROCESS_CPUTIME_ID:
      break;
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
      return Err(EPERM);
    default:
      return Err(EINVAL);
  }
  RefPtr<Task> target;
  siginfo_t info = MakeSigInfo(0, SI_TIMER);
  switch (event.sigev_notify) {
    case SIGEV_NONE:
      break;
    case SIGEV_THREAD_ID:
      if (notify == nullptr) return Err(EINVAL);
      target = RefPtr<Task>(notify);
      [[fallthrough]];
    case SIGEV_SIGNAL:
      if (!IsValidSignal(event.sigev_signo)) return Err(EINVAL);
      info.si_signo = event.sigev_signo;
      break;
    default:
      return Err(EINVAL);
  }
  // timer_create(2): a timer's signal has its place in the queue from the start.
  std::optional<uint32_t> owner;
  if (const Task* caller = Task::Current(); caller != nullptr) {
    owner = caller->creds().ruid;
    if (!limits::PendingSignalsOfUsers().Charge(*owner, 1, group_.limits.Get(RLIMIT_SIGPENDING).soft)) {
      return Err(EAGAIN);
    }
  }
  sync::MutexLock lock(mu_);
  while (posix_.contains(next_id_)) next_id_ = (next_id_ + 1) & INT32_MAX;
  int id = next_id_;
  next_id_ = (next_id_ + 1) & INT32_MAX;
  info.si_timerid = id;
  info.si_value = event.sigev_value;
  posix_[id] = std::make_shared<OneTimer>(group_, clock, false, info, std::move(target), owner);
  return id;
}

Result<> ProcessTimers::Delete(int id) {
  std::shared_ptr<OneTimer> timer;
  {
    sync::MutexLock lock(mu_);
    auto it = posix_.find(id);
    if (it == posix_.end()) return Err(EINVAL);
    timer = std::move(it->second);
    posix_.erase(it);
  }
  timer->Stop();
  return {};
}

Result<TimerSetting> ProcessTimers::Set(int id, TimerSetting setting, bool absolute) {
  std::shared_ptr<OneTimer> timer;
  {
    sync::MutexLock lock(mu_);
    auto it = posix_.find(id);
    if (it == posix_.end()) return Err(EINVAL);
    timer = it->second;
  }
  return timer->Set(setting, absolute);
}

Result<TimerSetting> ProcessTimers::Get(int id) {
  std::shared_ptr<OneTimer> timer;
  {
    sync::MutexLock lock(mu_);
    auto it = posix_.find(id);
    if (it == posix_.end()) return Err(EINVAL);
    timer = it->second;
  }
  return timer->Get();
}

Result<int> ProcessTimers::Overrun(int id) {
  sync::MutexLock lock(mu_);
  auto it = posix_.find(id);
  if (it == posix_.end()) return Err(EINVAL);
  return it->second->overrun();
}

void ProcessTimers::DeletePosixTimers() {
  std::map<int, std::shared_ptr<OneTimer>> doomed;
  {
    sync::MutexLock lock(mu_);
    doomed.swap(posix_);
  }
  // Without the lock: Stop waits for a callback that is running.
  for (auto& [id, timer] : doomed) timer->Stop();
}

void ProcessTimers::StopAll() {
  DeletePosixTimers();
  for (int which = 0; which < 3; which++) {
    OneTimer* timer = nullptr;
    {
      sync::MutexLock lock(mu_);
      timer = itimers_[which].get();
    }
    if (timer != nullptr) timer->Stop();
  }
}

}  // namespace redoubt::kernel
