#include "pkg/sentry/kernel/pidfd.h"

#include <fcntl.h>
#include <fmt/format.h>

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::kernel {

Pidfd::Pidfd(RefPtr<ThreadGroup> group)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:[pidfd]"), O_RDWR), group_(std::move(group)) {}

std::string Pidfd::FdInfo() {
  sync::MutexLock lock(group_->kernel().mu);
  const int pid = group_->reaped ? -1 : group_->id;
  return fmt::format("Pid:\t{}\nNSpid:\t{}\n", pid, pid);
}

waiter::EventMask Pidfd::Readiness(waiter::EventMask mask) {
  sync::MutexLock lock(group_->kernel().mu);
  return group_->zombie ? (mask & (waiter::kIn | waiter::kRdNorm)) : 0;
}

RefPtr<vfs::FileDescription> MakePidfd(RefPtr<ThreadGroup> group) { return MakeRef<Pidfd>(std::move(group)); }

}  // namespace redoubt::kernel
