// pidfd_open(2): a descriptor that names a process.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_PIDFD_H_
#define REDOUBT_PKG_SENTRY_KERNEL_PIDFD_H_

#include "pkg/refs/refs.h"
#include "pkg/sentry/kernel/thread_group.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::kernel {

// Readable (poll) once the process is a zombie or gone.
class Pidfd final : public vfs::FileDescription {
 public:
  explicit Pidfd(RefPtr<ThreadGroup> group);
  ThreadGroup& group() const { return *group_; }

  std::string FdInfo() override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { group_->exit_events.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { group_->exit_events.Unregister(entry); }
  bool SupportsEpoll() const override { return true; }
  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }

 private:
  const RefPtr<ThreadGroup> group_;
};

RefPtr<vfs::FileDescription> MakePidfd(RefPtr<ThreadGroup> group);

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_PIDFD_H_
