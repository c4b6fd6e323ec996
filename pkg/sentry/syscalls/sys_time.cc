// Time: clock_gettime(2), nanosleep(2), clock_nanosleep(2), setitimer(2), alarm(2), timer_create(2).
#include <sys/time.h>
#include <sys/timex.h>

#include <utility>

#include "pkg/sentry/kernel/process_timers.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

using kernel::TimerSetting;

// clock_getcpuclockid(3): ~pid in the upper bits, 2 (all time) and 4 (a thread's) below.
Result<clock::Nanoseconds> CpuClock(Task& task, clockid_t id) {
  auto total = [](const kernel::CpuTimes& t) { return static_cast<clock::Nanoseconds>(t.user + t.system); };
  bool thread = (id & 4) != 0;
  int which = id & 3;
  if (which > 2) return Err(EINVAL);
  int pid = ~(id >> 3);
  if (thread) {
    RefPtr<Task> target = pid == 0 ? RefPtr<Task>(&task) : task.FindTask(pid);
    if (!target || &target->group() != &task.group()) return Err(EINVAL);
    kernel::CpuTimes cpu = target->GetUsage().cpu;
    if (which == 1) cpu.system = 0;
    return total(cpu);
  }
  RefPtr<kernel::ThreadGroup> group = pid == 0 ? task.group_ref() : task.FindGroup(pid);
  if (!group) return Err(EINVAL);
  kernel::CpuTimes cpu;
  {
    sync::MutexLock lock(task.kernel().mu);
    cpu = group->usage.cpu;
  }
  for (const auto& t : task.kernel().TasksOf(*group)) cpu += t->GetUsage().cpu;
  if (which == 1) cpu.system = 0;
  return total(cpu);
}

Result<clock::Nanoseconds> ReadClock(Task& task, clockid_t id) {
  if (id < 0) return CpuClock(task, id);
  switch (id) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_TAI:
      return clock::Realtime();
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
      return clock::Monotonic();
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM:
      return clock::Boottime();
    case CLOCK_PROCESS_CPUTIME_ID:
      return CpuClock(task, ~0 << 3 | 2);
    case CLOCK_THREAD_CPUTIME_ID:
      return CpuClock(task, ~0 << 3 | 4 | 2);
    default:
      return Err(EINVAL);
  }
}

// Sleeps until `deadline` of the executor's clock. Interrupted: what is left goes to `remaining`.
Result<uint64_t> SleepUntil(Task& task, fiber::Time deadline, Addr remaining, bool restartable) {
  while (true) {
    Result<> r = wait::Block(deadline);
    if (r) continue;
    if (r.error() == Errno(ETIMEDOUT)) return 0;
    int64_t left = std::max<int64_t>(deadline - fiber::Now(), 0);
    if (left == 0) return 0;
    if (!restartable) return Err(kErestartnohand);
    if (remaining != 0) TRY(CopyOutTimespec(task, remaining, left));
    task.restart = [=](Task& t) { return SleepUntil(t, deadline, remaining, true); };
    return Err(kErestartRestartblock);
  }
}

Result<TimerSetting> FromItimerval(const itimerval& v) {
  for (const timeval& t : {v.it_value, v.it_interval}) {
    if (t.tv_sec < 0 || t.tv_usec < 0 || t.tv_usec >= 1'000'000) return Err(EINVAL);
  }
  auto ns = [](const timeval& t) { return clock::FromTimespec({.tv_sec = t.tv_sec, .tv_nsec = t.tv_usec * 1000}); };
  return TimerSetting{.value = ns(v.it_value), .interval = ns(v.it_interval)};
}

itimerval ToItimerval(const TimerSetting& s) {
  auto tv = [](int64_t ns) {
    // Rounded up: a running timer never reads as 0.
    int64_t us = ns / 1000 + (ns % 1000 != 0);
    return timeval{.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
  };
  return {.it_interval = tv(s.interval), .it_value = tv(s.value)};
}

itimerspec ToItimerspec(const TimerSetting& s) {
  return {.it_interval = clock::ToTimespec(s.interval), .it_value = clock::ToTimespec(s.value)};
}

}  // namespace

Result<uint64_t> ClockGettime(Task& task, const SyscallArgs& a) {
  TRY(CopyOutTimespec(task, a.Pointer(1), TRY(ReadClock(task, a.I32(0)))));
  return 0;
}

Result<uint64_t> ClockGetres(Task& task, const SyscallArgs& a) {
  clockid_t id = a.I32(0);
  (void)TRY(ReadClock(task, id));
  if (a.Pointer(1) == 0) return 0;
  bool coarse = id == CLOCK_REALTIME_COARSE || id == CLOCK_MONOTONIC_COARSE;
  TRY(CopyOutTimespec(task, a.Pointer(1), coarse ? 4'000'000 : 1));
  return 0;
}

Result<uint64_t> ClockSettime(Task& task, const SyscallArgs& a) {
  (void)TRY(CopyInTimespec(task, a.Pointer(1)));
  return Err(a.I32(0) == CLOCK_REALTIME ? EPERM : EINVAL);
}

Result<uint64_t> Gettimeofday(Task& task, const SyscallArgs& a) {
  if (a.Pointer(0) != 0) {
    timespec now = clock::ToTimespec(clock::Realtime());
    TRY(task.mm().CopyOutObject(a.Pointer(0), timeval{.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000}));
  }
  if (a.Pointer(1) != 0) TRY(task.mm().CopyOutObject(a.Pointer(1), std::array<int32_t, 2>{0, 0}));
  return 0;
}

Result<uint64_t> Settimeofday(Task&, const SyscallArgs&) { return Err(EPERM); }

Result<uint64_t> Time(Task& task, const SyscallArgs& a) {
  int64_t now = clock::Realtime() / 1'000'000'000;
  if (a.Pointer(0) != 0) TRY(task.mm().CopyOutObject(a.Pointer(0), now));
  return now;
}

namespace {
Result<uint64_t> ReadAdjustment(Task& task, Addr addr) {
  timex t = TRY(task.mm().CopyInObject<timex>(addr));
  if (t.modes != 0) return Err(EPERM);
  timespec now = clock::ToTimespec(clock::Realtime());
  t = timex{};
  t.status = STA_UNSYNC;
  t.time = {.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
  t.tick = 10'000;
  t.precision = 1;
  TRY(task.mm().CopyOutObject(addr, t));
  return TIME_ERROR;
}
}  // namespace

Result<uint64_t> Adjtimex(Task& task, const SyscallArgs& a) { return ReadAdjustment(task, a.Pointer(0)); }

Result<uint64_t> ClockAdjtime(Task& task, const SyscallArgs& a) {
  (void)TRY(ReadClock(task, a.I32(0)));
  if (a.I32(0) != CLOCK_REALTIME) return Err(EOPNOTSUPP);
  return ReadAdjustment(task, a.Pointer(1));
}

Result<uint64_t> Nanosleep(Task& task, const SyscallArgs& a) {
  return SleepUntil(task, DeadlineAfter(TRY(CopyInTimespec(task, a.Pointer(0)))), a.Pointer(1), true);
}

Result<uint64_t> ClockNanosleep(Task& task, const SyscallArgs& a) {
  clockid_t id = a.I32(0);
  // What cannot be slept on (the kernel's k_clock without nsleep); the C library says EINVAL of the first by itself.
  if (id == CLOCK_THREAD_CPUTIME_ID || id == CLOCK_MONOTONIC_RAW || id == CLOCK_REALTIME_COARSE ||
      id == CLOCK_MONOTONIC_COARSE) {
    return Err(EOPNOTSUPP);
  }
  clock::Nanoseconds now = TRY(ReadClock(task, id));
  clock::Nanoseconds t = TRY(CopyInTimespec(task, a.Pointer(2)));
  bool absolute = (a.I32(1) & TIMER_ABSTIME) != 0;
  if (absolute) return SleepUntil(task, t <= now ? fiber::Now() : DeadlineAfter(t - now), 0, false);
  return SleepUntil(task, DeadlineAfter(t), a.Pointer(3), true);
}

Result<uint64_t> RestartSyscall(Task& task, const SyscallArgs&) {
  if (!task.restart) return Err(EINTR);
  return std::exchange(task.restart, nullptr)(task);
}

Result<uint64_t> Getitimer(Task& task, const SyscallArgs& a) {
  if (a.U32(0) > ITIMER_PROF) return Err(EINVAL);
  TRY(task.mm().CopyOutObject(a.Pointer(1), ToItimerval(task.group().timers->GetItimer(a.I32(0)))));
  return 0;
}

Result<uint64_t> Setitimer(Task& task, const SyscallArgs& a) {
  if (a.U32(0) > ITIMER_PROF) return Err(EINVAL);
  itimerval value{};
  if (a.Pointer(1) != 0) value = TRY(task.mm().CopyInObject<itimerval>(a.Pointer(1)));
  TimerSetting setting = TRY(FromItimerval(value));
  TimerSetting old = task.group().timers->SetItimer(a.I32(0), setting);
  if (a.Pointer(2) != 0) TRY(task.mm().CopyOutObject(a.Pointer(2), ToItimerval(old)));
  return 0;
}

Result<uint64_t> Alarm(Task& task, const SyscallArgs& a) {
  TimerSetting old =
      task.group().timers->SetItimer(ITIMER_REAL, {.value = int64_t{a.U32(0)} * 1'000'000'000, .interval = 0});
  // Rounded, but a running alarm is never 0 (alarm(2)).
  int64_t seconds = (old.value + 500'000'000) / 1'000'000'000;
  return old.value > 0 && seconds == 0 ? 1 : seconds;
}

Result<uint64_t> TimerCreate(Task& task, const SyscallArgs& a) {
  struct sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGALRM;
  if (a.Pointer(1) != 0) event = TRY(task.mm().CopyInObject<struct sigevent>(a.Pointer(1)));
  RefPtr<Task> target;
  if (event.sigev_notify == SIGEV_THREAD_ID) {
    target = task.FindTask(event._sigev_un._tid);
    if (!target || &target->group() != &task.group()) return Err(EINVAL);
  }
  int id = TRY(task.group().timers->Create(a.I32(0), event, target.get()));
  if (Result<> r = task.mm().CopyOutObject<int32_t>(a.Pointer(2), id); !r) {
    (void)task.group().timers->Delete(id);
    return Err(r.error());
  }
  return 0;
}

Result<uint64_t> TimerSettime(Task& task, const SyscallArgs& a) {
  itimerspec value = TRY(task.mm().CopyInObject<itimerspec>(a.Pointer(2)));
  for (const timespec& t : {value.it_value, value.it_interval}) {
    if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) return Err(EINVAL);
  }
  TimerSetting setting{.value = clock::FromTimespec(value.it_value),
                       .interval = clock::FromTimespec(value.it_interval)};
  TimerSetting old = TRY(task.group().timers->Set(a.I32(0), setting, (a.I32(1) & TIMER_ABSTIME) != 0));
  if (a.Pointer(3) != 0) TRY(task.mm().CopyOutObject(a.Pointer(3), ToItimerspec(old)));
  return 0;
}

Result<uint64_t> TimerGettime(Task& task, const SyscallArgs& a) {
  TRY(task.mm().CopyOutObject(a.Pointer(1), ToItimerspec(TRY(task.group().timers->Get(a.I32(0))))));
  return 0;
}

Result<uint64_t> TimerGetoverrun(Task& task, const SyscallArgs& a) {
  return TRY(task.group().timers->Overrun(a.I32(0)));
}

Result<uint64_t> TimerDelete(Task& task, const SyscallArgs& a) {
  TRY(task.group().timers->Delete(a.I32(0)));
  return 0;
}

}  // namespace redoubt::syscalls
