#include "pkg/sentry/timerfd/timerfd.h"

#include <fcntl.h>

#include <algorithm>

#include "pkg/sentry/time/clock.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::timerfd {
namespace {

int64_t Saturate(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

}  // namespace

TimerFd::TimerFd(fiber::Executor& executor, clockid_t clock, int flags)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:[timerfd]"), O_RDWR | flags),
      executor_(executor),
      clock_(clock),
      timer_(executor, [this] { Expired(); }) {}

TimerFd::~TimerFd() { timer_.Disarm(); }

int64_t TimerFd::Now() const {
  switch (clock_) {
    case CLOCK_REALTIME:
      return clock::Realtime();
    case CLOCK_BOOTTIME:
      return clock::Boottime();
    default:
      return clock::Monotonic();
  }
}

void TimerFd::AdvanceLocked(int64_t now) {
  if (expiry_ == 0 || expiry_ > now) return;
  if (interval_ == 0) {
    expirations_++;
    expiry_ = 0;
    return;
  }
  int64_t n = (now - expiry_) / interval_ + 1;
  expirations_ += n;
  expiry_ = Saturate(expiry_, n * interval_);
}

Setting TimerFd::RemainingLocked(int64_t now) const {
  if (expiry_ == 0) return {.value = 0, .interval = interval_};
  return {.value = std::max<int64_t>(expiry_ - now, 1), .interval = interval_};
}

void TimerFd::Rearm(int64_t expiry, int64_t now) {
  timer_.Arm(Saturate(executor_.Now(), std::max<int64_t>(expiry - now, 0)));
}

Setting TimerFd::Set(Setting setting, bool absolute) {
  int64_t now = Now();
  Setting old;
  int64_t expiry = 0;
  {
    sync::MutexLock lock(mu_);
    AdvanceLocked(now);
    old = RemainingLocked(now);
    expirations_ = 0;
    interval_ = setting.interval;
    expiry_ = setting.value == 0 ? 0 : absolute ? setting.value : Saturate(now, setting.value);
    expiry = expiry_;
  }
  if (expiry == 0) {
    timer_.Disarm();
  } else {
    Rearm(expiry, now);
  }
  return old;
}

Setting TimerFd::Get() {
  int64_t now = Now();
  sync::MutexLock lock(mu_);
  AdvanceLocked(now);
  return RemainingLocked(now);
}

void TimerFd::Expired() {
  int64_t now = Now();
  int64_t next = 0;
  bool readable = false;
  {
    sync::MutexLock lock(mu_);
    AdvanceLocked(now);
    readable = expirations_ > 0;
    next = expiry_;
  }
  if (readable) queue_.Notify(waiter::kIn | waiter::kRdNorm);
  if (next != 0) Rearm(next, now);
}

Result<size_t> TimerFd::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.remaining() < sizeof(uint64_t)) return Err(EINVAL);
  uint64_t value = 0;
  int64_t now = Now();
  {
    sync::MutexLock lock(mu_);
    AdvanceLocked(now);
    if (expirations_ == 0) return Err(EAGAIN);
    value = std::exchange(expirations_, 0);
  }
  return dst.CopyOut(std::as_bytes(std::span(&value, 1)));
}

waiter::EventMask TimerFd::Readiness(waiter::EventMask mask) {
  int64_t now = Now();
  sync::MutexLock lock(mu_);
  AdvanceLocked(now);
  return expirations_ > 0 ? mask & (waiter::kIn | waiter::kRdNorm) : 0;
}

RefPtr<vfs::FileDescription> Make(fiber::Executor& executor, clockid_t clock, int flags) {
  return MakeRef<TimerFd>(executor, clock, flags);
}

}  // namespace redoubt::timerfd
