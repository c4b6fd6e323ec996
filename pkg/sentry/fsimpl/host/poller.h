// Tells wait queues about host descriptors that became ready: one epoll and one OS thread per process. Private to host.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_HOST_POLLER_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_HOST_POLLER_H_

#include <cstdint>
#include <unordered_map>

#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::host {

// Thread-safe. The thread starts with the first descriptor that can be polled and lives as long as the process.
class Poller final {
 public:
  static Poller& Get();

  // From now on `queue` hears of every event of `fd`. Returns an ID for Remove, or 0 if the descriptor is always ready
  // (regular files).
  uint64_t Add(int fd, waiter::Queue& queue) EXCLUDES(mu_);
  // Before `fd` is closed. Afterwards `queue` hears nothing more.
  void Remove(uint64_t id, int fd) EXCLUDES(mu_);

 private:
  Poller();
  void Run();

  const int epoll_fd_;
  sync::Mutex mu_{sync::Rank::kHostPoller};
  std::unordered_map<uint64_t, waiter::Queue*> queues_ GUARDED_BY(mu_);
  uint64_t next_id_ GUARDED_BY(mu_) = 1;
};

}  // namespace redoubt::host

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_HOST_POLLER_H_
