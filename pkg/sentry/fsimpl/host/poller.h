// Tells wait queues about host descriptors that became ready: one epoll and one OS thread per process. For those that
// the guest was given, and for sockets of the host (socket/hostinet).
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_HOST_POLLER_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_HOST_POLLER_H_

#include <cstdint>
#include <unordered_map>

#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::host {

// Thread-safe. The thread starts with the first use and lives as long as the process.
class Poller final {
 public:
  static Poller& Get();

  // Before the first use otherwise: there will be no thread, and who calls it looks whenever epoll_fd() is readable.
  void LeaveToCaller() EXCLUDES(mu_);
  // Starts the thread, if there is to be one.
  void Start() EXCLUDES(mu_);

  int epoll_fd() const { return epoll_fd_; }
  // Tells of at most so many events, without waiting; of how many it has.
  size_t Look(size_t most) EXCLUDES(mu_);

  // From now on `queue` hears of every event of `fd`. Returns an ID for Remove, or 0 if the descriptor is always ready
  // (regular files).
  uint64_t Add(int fd, waiter::Queue& queue) EXCLUDES(mu_);
  // Before `fd` is closed. Afterwards `queue` hears nothing more.
  void Remove(uint64_t id, int fd) EXCLUDES(mu_);

 private:
  static constexpr size_t kMostAtOnce = 64;

  Poller();
  void StartLocked() REQUIRES(mu_);
  void Run();
  // Waits for an event if `timeout` is -1, and not at all if it is 0.
  size_t Tell(size_t most, int timeout) EXCLUDES(mu_);

  const int epoll_fd_;
  sync::Mutex mu_{sync::Rank::kHostPoller};
  std::unordered_map<uint64_t, waiter::Queue*> queues_ GUARDED_BY(mu_);
  uint64_t next_id_ GUARDED_BY(mu_) = 1;
  bool thread_ GUARDED_BY(mu_) = false;  // there is one, or none is wanted
};

}  // namespace redoubt::host

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_HOST_POLLER_H_
