// signalfd(2).
#ifndef REDOUBT_PKG_SENTRY_SIGNALFD_SIGNALFD_H_
#define REDOUBT_PKG_SENTRY_SIGNALFD_SIGNALFD_H_

#include <atomic>

#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/thread_group.h"
#include "pkg/sentry/signal/signal.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::signalfd {

// Reads take signals of whoever reads, as in Linux; waiting is on the process that made the description.
class SignalFd final : public vfs::FileDescription {
 public:
  SignalFd(RefPtr<kernel::ThreadGroup> group, SignalSet mask, int flags);

  void SetMask(SignalSet mask);
  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<uint64_t> Seek(int64_t, int) override { return 0; }  // Linux: noop_llseek
  std::string FdInfo() override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { group_->signal_queue.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { group_->signal_queue.Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  const RefPtr<kernel::ThreadGroup> group_;
  std::atomic<SignalSet> mask_;
};

// For the current task. `flags`: O_NONBLOCK.
RefPtr<vfs::FileDescription> Make(SignalSet mask, int flags);

}  // namespace redoubt::signalfd

#endif  // REDOUBT_PKG_SENTRY_SIGNALFD_SIGNALFD_H_
