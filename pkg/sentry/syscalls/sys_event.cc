// pipe(2), eventfd(2), signalfd(2), timerfd_create(2), epoll(7).
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <boost/container/small_vector.hpp>

#include "pkg/sentry/epoll/epoll.h"
#include "pkg/sentry/eventfd/eventfd.h"
#include "pkg/sentry/pipe/pipe.h"
#include "pkg/sentry/signalfd/signalfd.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/timerfd/timerfd.h"

namespace redoubt::syscalls {
namespace {

Result<uint64_t> DoPipe(Task& task, Addr out, int flags) {
  if ((flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT)) != 0) return Err(EINVAL);
  auto [reader, writer] = TRY(pipe::MakePipe(flags & (O_NONBLOCK | O_DIRECT), task.creds()));
  bool cloexec = (flags & O_CLOEXEC) != 0;
  std::array<int32_t, 2> fds{};
  fds[0] = TRY(task.InstallFd(std::move(reader), cloexec));
  Result<int> w = task.InstallFd(std::move(writer), cloexec);
  if (!w) {
    (void)task.fds().Close(fds[0]);
    return Err(w.error());
  }
  fds[1] = *w;
  if (Result<> r = task.mm().CopyOutObject(out, fds); !r) {
    (void)task.fds().Close(fds[0]);
    (void)task.fds().Close(fds[1]);
    return Err(r.error());
  }
  return 0;
}

Result<uint64_t> DoEventfd(Task& task, uint32_t initial, int flags) {
  if ((flags & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) != 0) return Err(EINVAL);
  return TRY(task.InstallFd(eventfd::Make(initial, (flags & EFD_SEMAPHORE) != 0, flags & EFD_NONBLOCK),
                            (flags & EFD_CLOEXEC) != 0));
}

Result<uint64_t> DoSignalfd(Task& task, int fd, Addr mask_addr, size_t size, int flags) {
  if (size != sizeof(SignalSet) || (flags & ~(SFD_CLOEXEC | SFD_NONBLOCK)) != 0) return Err(EINVAL);
  SignalSet mask = TRY(task.mm().CopyInObject<SignalSet>(mask_addr)) & ~kUnblockable;
  if (fd == -1) {
    return TRY(task.InstallFd(signalfd::Make(mask, flags & SFD_NONBLOCK), (flags & SFD_CLOEXEC) != 0));
  }
  FdTable::File file = TRY(task.File(fd));
  auto* existing = dynamic_cast<signalfd::SignalFd*>(file.get());
  if (existing == nullptr) return Err(EINVAL);
  existing->SetMask(mask);
  return fd;
}

Result<RefPtr<epoll::Epoll>> GetEpoll(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  RefPtr<epoll::Epoll> ep = RefCast<epoll::Epoll>(file);
  if (!ep) return Err(EINVAL);
  return ep;
}

// `deadline` kForever: no time-out; a deadline that has passed: just look.
Result<uint64_t> DoEpollWait(Task& task, int fd, Addr out, int max_events, fiber::Time deadline, bool poll_only) {
  if (max_events <= 0 || max_events > static_cast<int>(INT32_MAX / sizeof(epoll_event))) return Err(EINVAL);
  RefPtr<epoll::Epoll> ep = TRY(GetEpoll(task, fd));
  boost::container::small_vector<epoll_event, 16> events(std::min(max_events, 1024), boost::container::default_init);
  size_t taken = 0;
  if (poll_only) {
    taken = ep->Take(events);
  } else {
    Result<> waited = wait::Retry(*ep, waiter::kIn, deadline, [&]() -> Result<> {
      taken = ep->Take(events);
      if (taken == 0) return Err(EAGAIN);
      return {};
    });
    if (!waited && waited.error() != Errno(ETIMEDOUT)) return Err(EINTR);
  }
  TRY(task.mm().CopyOutAll(out, std::as_bytes(std::span(events).first(taken))));
  return taken;
}

fiber::Time MillisecondDeadline(int ms) { return ms < 0 ? fiber::kForever : DeadlineAfter(int64_t{ms} * 1'000'000); }

Result<> ApplySigmask(Task& task, Addr mask, size_t size) {
  if (mask == 0) return {};
  if (size != sizeof(SignalSet)) return Err(EINVAL);
  task.SetTemporaryMask(TRY(task.mm().CopyInObject<SignalSet>(mask)));
  return {};
}

Result<timerfd::TimerFd*> GetTimerfd(FdTable::File& file) {
  auto* timer = dynamic_cast<timerfd::TimerFd*>(file.get());
  if (timer == nullptr) return Err(EINVAL);
  return timer;
}

itimerspec ToItimerspec(const timerfd::Setting& s) {
  return {.it_interval = clock::ToTimespec(s.interval), .it_value = clock::ToTimespec(s.value)};
}

}  // namespace

Result<uint64_t> Pipe(Task& task, const SyscallArgs& a) { return DoPipe(task, a.Pointer(0), 0); }
Result<uint64_t> Pipe2(Task& task, const SyscallArgs& a) { return DoPipe(task, a.Pointer(0), a.I32(1)); }
Result<uint64_t> Eventfd(Task& task, const SyscallArgs& a) { return DoEventfd(task, a.U32(0), 0); }
Result<uint64_t> Eventfd2(Task& task, const SyscallArgs& a) { return DoEventfd(task, a.U32(0), a.I32(1)); }
Result<uint64_t> Signalfd(Task& task, const SyscallArgs& a) {
  return DoSignalfd(task, a.I32(0), a.Pointer(1), a.Size(2), 0);
}
Result<uint64_t> Signalfd4(Task& task, const SyscallArgs& a) {
  return DoSignalfd(task, a.I32(0), a.Pointer(1), a.Size(2), a.I32(3));
}

Result<uint64_t> EpollCreate(Task& task, const SyscallArgs& a) {
  if (a.I32(0) <= 0) return Err(EINVAL);
  return TRY(task.InstallFd(epoll::Make(task.creds().ruid), false));
}

Result<uint64_t> EpollCreate1(Task& task, const SyscallArgs& a) {
  if ((a.I32(0) & ~EPOLL_CLOEXEC) != 0) return Err(EINVAL);
  return TRY(task.InstallFd(epoll::Make(task.creds().ruid), (a.I32(0) & EPOLL_CLOEXEC) != 0));
}

Result<uint64_t> EpollCtl(Task& task, const SyscallArgs& a) {
  int op = a.I32(1);
  epoll_event event{};
  if (op != EPOLL_CTL_DEL) event = TRY(task.mm().CopyInObject<epoll_event>(a.Pointer(3)));
  FdTable::File ep_file = TRY(task.File(a.I32(0)));
  FdTable::File target = TRY(task.File(a.I32(2)));
  RefPtr<epoll::Epoll> ep = TRY(GetEpoll(task, a.I32(0)));
  if (!target->SupportsEpoll()) return Err(EPERM);
  if (target == ep_file) return Err(EINVAL);
  switch (op) {
    case EPOLL_CTL_ADD:
      TRY(ep->Add(a.I32(2), std::move(target), event));
      return 0;
    case EPOLL_CTL_MOD:
      TRY(ep->Modify(a.I32(2), *target, event));
      return 0;
    case EPOLL_CTL_DEL:
      TRY(ep->Remove(a.I32(2), *target));
      return 0;
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> EpollWait(Task& task, const SyscallArgs& a) {
  return DoEpollWait(task, a.I32(0), a.Pointer(1), a.I32(2), MillisecondDeadline(a.I32(3)), a.I32(3) == 0);
}

Result<uint64_t> EpollPwait(Task& task, const SyscallArgs& a) {
  TRY(ApplySigmask(task, a.Pointer(4), a.Size(5)));
  return DoEpollWait(task, a.I32(0), a.Pointer(1), a.I32(2), MillisecondDeadline(a.I32(3)), a.I32(3) == 0);
}

Result<uint64_t> EpollPwait2(Task& task, const SyscallArgs& a) {
  fiber::Time deadline = fiber::kForever;
  bool poll_only = false;
  if (a.Pointer(3) != 0) {
    clock::Nanoseconds t = TRY(CopyInTimespec(task, a.Pointer(3)));
    poll_only = t == 0;
    deadline = DeadlineAfter(t);
  }
  TRY(ApplySigmask(task, a.Pointer(4), a.Size(5)));
  return DoEpollWait(task, a.I32(0), a.Pointer(1), a.I32(2), deadline, poll_only);
}

Result<uint64_t> TimerfdCreate(Task& task, const SyscallArgs& a) {
  if ((a.I32(1) & ~(TFD_CLOEXEC | TFD_NONBLOCK)) != 0) return Err(EINVAL);
  switch (a.I32(0)) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
      break;
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
      return Err(EPERM);
    default:
      return Err(EINVAL);
  }
  return TRY(task.InstallFd(timerfd::Make(task.kernel().executor(), a.I32(0), a.I32(1) & TFD_NONBLOCK),
                            (a.I32(1) & TFD_CLOEXEC) != 0));
}

Result<uint64_t> TimerfdSettime(Task& task, const SyscallArgs& a) {
  if ((a.I32(1) & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) != 0) return Err(EINVAL);
  itimerspec value = TRY(task.mm().CopyInObject<itimerspec>(a.Pointer(2)));
  for (const timespec& t : {value.it_value, value.it_interval}) {
    if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1'000'000'000) return Err(EINVAL);
  }
  FdTable::File file = TRY(task.File(a.I32(0)));
  timerfd::TimerFd* timer = TRY(GetTimerfd(file));
  timerfd::Setting old =
      timer->Set({.value = clock::FromTimespec(value.it_value), .interval = clock::FromTimespec(value.it_interval)},
                 (a.I32(1) & TFD_TIMER_ABSTIME) != 0);
  if (a.Pointer(3) != 0) TRY(task.mm().CopyOutObject(a.Pointer(3), ToItimerspec(old)));
  return 0;
}

Result<uint64_t> TimerfdGettime(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  timerfd::TimerFd* timer = TRY(GetTimerfd(file));
  TRY(task.mm().CopyOutObject(a.Pointer(1), ToItimerspec(timer->Get())));
  return 0;
}

}  // namespace redoubt::syscalls
