// Interval timers (setitimer(2), alarm(2)) and POSIX timers (timer_create(2)) of a process.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_PROCESS_TIMERS_H_
#define REDOUBT_PKG_SENTRY_KERNEL_PROCESS_TIMERS_H_

#include <signal.h>

#include <cstdint>
#include <map>
#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/sync/mutex.h"

namespace redoubt::kernel {

class Task;
class ThreadGroup;

// Nanoseconds; 0: disarmed.
struct TimerSetting {
  int64_t value = 0;     // until the next expiry
  int64_t interval = 0;  // between the following ones
};

// Thread-safe. CPU-time timers are armed for the earliest moment they could expire at and look again then, so no tick
// is needed.
class ProcessTimers final {
 public:
  explicit ProcessTimers(ThreadGroup& group);
  ~ProcessTimers();

  // `which`: ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
  TimerSetting GetItimer(int which);
  TimerSetting SetItimer(int which, TimerSetting setting);

  // `event` as timer_create(2) takes it (checked here: EINVAL); `notify` is the task for SIGEV_THREAD_ID. Returns the
  // timer's ID.
  Result<int> Create(clockid_t clock, const struct sigevent& event, Task* notify);
  Result<> Delete(int id);
  // `absolute`: value is a time of the timer's clock.
  Result<TimerSetting> Set(int id, TimerSetting setting, bool absolute);
  Result<TimerSetting> Get(int id);
  Result<int> Overrun(int id);

  // exec: POSIX timers do not survive; interval timers do.
  void DeletePosixTimers();
  // The process ends.
  void StopAll();

 private:
  class OneTimer;

  ThreadGroup& group_;
  sync::Mutex mu_{sync::Rank::kFsContext};
  std::unique_ptr<OneTimer> itimers_[3] GUARDED_BY(mu_);
  std::map<int, std::shared_ptr<OneTimer>> posix_ GUARDED_BY(mu_);
  int next_id_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_PROCESS_TIMERS_H_
