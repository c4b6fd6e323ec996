#include "runsc/boot/process.h"

#include "pkg/sentry/signal/signal.h"

namespace redoubt::boot {

void Process::Signal(int sig, bool keyboard) {
  if (keyboard && terminal_) {
    terminal_->SignalForeground(sig);
    return;
  }
  // There is no terminal whose size has changed.
  if (keyboard && sig == SIGWINCH) return;
  (void)group_->kernel().SendToGroup(*group_, MakeKillInfo(sig, SI_USER, 0, 0));
}

bool Process::HasEnded() {
  sync::MutexLock lock(group_->kernel().mu);
  return group_->zombie;
}

bool Process::AddWaiter(const void* key, Waiter f) {
  sync::MutexLock lock(mu_);
  if (ended_) return false;
  waiters_.emplace(key, std::move(f));
  return true;
}

void Process::RemoveWaiter(const void* key) {
  std::multimap<const void*, Waiter> removed;
  sync::MutexLock lock(mu_);
  auto [from, to] = waiters_.equal_range(key);
  for (auto it = from; it != to; ++it) removed.emplace(key, std::move(it->second));
  waiters_.erase(from, to);
}

int Process::AwaitEnd() {
  int status = group_->kernel().WaitForExit(*group_);
  std::multimap<const void*, Waiter> waiters;
  {
    sync::MutexLock lock(mu_);
    ended_ = true;
    waiters.swap(waiters_);
  }
  for (auto& [key, waiter] : waiters) waiter(status);
  return status;
}

}  // namespace redoubt::boot
