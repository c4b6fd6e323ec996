// The descriptor by which a supervisor answers for system calls of others: seccomp_unotify(2).
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_SECCOMP_NOTIFY_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_SECCOMP_NOTIFY_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/seccomp/seccomp_listener.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::syscalls {

// Held by descriptors; when the last is closed nobody answers any more.
class SeccompNotifyDescription final : public vfs::FileDescription {
 public:
  explicit SeccompNotifyDescription(RefPtr<SeccompListener> listener);
  ~SeccompNotifyDescription() override;

  // SECCOMP_IOCTL_NOTIF_*; waits for a question if it is to be received. EINVAL: another command.
  Result<uint64_t> Control(kernel::Task& task, uint32_t command, Addr arg);

  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  waiter::EventMask Readiness(waiter::EventMask mask) override { return listener_->Readiness(mask); }
  void RegisterWaiter(waiter::Entry& entry) override { listener_->RegisterWaiter(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { listener_->UnregisterWaiter(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  Result<uint64_t> Receive(kernel::Task& task, Addr arg);
  Result<uint64_t> Send(kernel::Task& task, Addr arg);
  Result<uint64_t> AddFd(kernel::Task& task, uint32_t size, Addr arg);

  const RefPtr<SeccompListener> listener_;
};

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_SECCOMP_NOTIFY_H_
