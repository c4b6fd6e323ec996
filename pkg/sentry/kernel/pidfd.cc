#include "pkg/sentry/kernel/pidfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::kernel {

Pidfd::Pidfd(RefPtr<ThreadGroup> group)
    : FileDescription(vfs::MakeAnonymousPath("anon_inode:[pidfd]"), O_RDWR), group_(std::move(group)) {}

std::string Pidfd::FdInfo() {
  Task* reader = Task::Current();
  const PidNamespace& ns = reader != nullptr ? reader->pid_ns() : group_->kernel().root_pid_ns();
  sync::MutexLock lock(group_->kernel().mu);
  if (group_->reaped) return "Pid:\t-1\nNSpid:\t-1\n";
  std::vector<int> numbers = group_->pid->NumbersFrom(ns);
  if (numbers.empty()) numbers = {0};
  return fmt::format("Pid:\t{}\nNSpid:\t{}\n", numbers[0], fmt::join(numbers, "\t"));
}

waiter::EventMask Pidfd::Readiness(waiter::EventMask mask) {
  sync::MutexLock lock(group_->kernel().mu);
  return group_->zombie ? (mask & (waiter::kIn | waiter::kRdNorm)) : 0;
}

RefPtr<vfs::FileDescription> MakePidfd(RefPtr<ThreadGroup> group) { return MakeRef<Pidfd>(std::move(group)); }

}  // namespace redoubt::kernel
