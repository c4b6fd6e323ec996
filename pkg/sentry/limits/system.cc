#include "pkg/sentry/limits/system.h"

#include <algorithm>

#include "pkg/log/log.h"

namespace redoubt::limits {

System& System::Get() {
  static auto* const system = new System();
  return *system;
}

void System::ScaleTo(uint64_t memory) {
  // Linux: an eighth of the memory in stacks of 16 KiB; a tenth of it in files of 1 KiB, but 8192 of them; 4 % of it in
  // watches of about 180 bytes; 1 % in watches of inotify(7), with an inode and a dentry 1280 bytes each.
  threads_max = std::clamp<int64_t>(static_cast<int64_t>(memory / 8 / (16 << 10)), 512, kMostThreads);
  // Linux: half of the threads.
  max_pid_namespaces = threads_max / 2;
  file_max = std::max<int64_t>(static_cast<int64_t>(memory / 10 / 1024), 8192);
  epoll_max_user_watches = std::max<int64_t>(static_cast<int64_t>(memory / 25 / 180), 1024);
  inotify_max_watches = std::clamp<int64_t>(static_cast<int64_t>(memory / 100 / 1280), 8192, 1048576);
}

bool UserCount::Charge(uint32_t uid, uint64_t n, uint64_t limit) {
  sync::MutexLock lock(mu_);
  auto it = counts_.find(uid);
  const uint64_t held = it == counts_.end() ? 0 : it->second;
  if (n > limit || held > limit - n) return false;
  if (it == counts_.end()) {
    counts_.emplace(uid, n);
  } else {
    it->second += n;
  }
  return true;
}

void UserCount::Uncharge(uint32_t uid, uint64_t n) {
  if (n == 0) return;
  sync::MutexLock lock(mu_);
  auto it = counts_.find(uid);
  CHECK(it != counts_.end() && it->second >= n, "uncharged more than was charged");
  it->second -= n;
  if (it->second == 0) counts_.erase(it);
}

uint64_t UserCount::Of(uint32_t uid) const {
  sync::MutexLock lock(mu_);
  auto it = counts_.find(uid);
  return it == counts_.end() ? 0 : it->second;
}

UserCount& PendingSignalsOfUsers() {
  static auto* const count = new UserCount();
  return *count;
}

UserCount& PidNamespacesOfUsers() {
  static auto* const count = new UserCount();
  return *count;
}

UserCount& MessageQueuesOfUsers() {
  static auto* const count = new UserCount();
  return *count;
}

}  // namespace redoubt::limits
