// timerfd_create(2).
#ifndef REDOUBT_PKG_SENTRY_TIMERFD_TIMERFD_H_
#define REDOUBT_PKG_SENTRY_TIMERFD_TIMERFD_H_

#include <time.h>

#include <cstdint>

#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt::timerfd {

// Nanoseconds; value 0: disarmed.
struct Setting {
  int64_t value = 0;
  int64_t interval = 0;
};

class TimerFd final : public vfs::FileDescription {
 public:
  TimerFd(fiber::Executor& executor, clockid_t clock, int flags);
  ~TimerFd() override;

  Setting Set(Setting setting, bool absolute);
  Setting Get();

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<uint64_t> Seek(int64_t, int) override { return 0; }  // Linux: noop_llseek
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { queue_.Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  int64_t Now() const;
  // Counts the expiries up to `now` and moves expiry_ on.
  void AdvanceLocked(int64_t now) REQUIRES(mu_);
  Setting RemainingLocked(int64_t now) const REQUIRES(mu_);
  void Rearm(int64_t expiry, int64_t now);
  void Expired();

  fiber::Executor& executor_;
  const clockid_t clock_;
  sync::Mutex mu_{sync::Rank::kTimer};
  int64_t expiry_ GUARDED_BY(mu_) = 0;  // of clock_; 0: disarmed
  int64_t interval_ GUARDED_BY(mu_) = 0;
  uint64_t expirations_ GUARDED_BY(mu_) = 0;  // not yet read
  waiter::Queue queue_;
  fiber::Timer timer_;  // last: its callback uses the rest
};

// `flags`: O_NONBLOCK.
RefPtr<vfs::FileDescription> Make(fiber::Executor& executor, clockid_t clock, int flags);

}  // namespace redoubt::timerfd

#endif  // REDOUBT_PKG_SENTRY_TIMERFD_TIMERFD_H_
