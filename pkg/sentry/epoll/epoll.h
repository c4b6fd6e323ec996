// epoll(7).
#ifndef REDOUBT_PKG_SENTRY_EPOLL_EPOLL_H_
#define REDOUBT_PKG_SENTRY_EPOLL_EPOLL_H_

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt::epoll {

// An interest list and its ready list. An interest is keyed by descriptor number and description, as in Linux, and
// holds no reference: it goes with the description (a hook in its destructor). Thread-safe.
class Epoll final : public vfs::FileDescription {
 public:
  // Its watches are charged to `owner` (epoll(7), max_user_watches).
  explicit Epoll(uint32_t owner);
  ~Epoll() override;

  // EEXIST; ELOOP for a circle of epolls or more than five in a row; ENOSPC: the owner has too many watches.
  Result<> Add(int fd, RefPtr<vfs::FileDescription> file, const epoll_event& event);
  // ENOENT; EINVAL for what EPOLLEXCLUSIVE forbids.
  Result<> Modify(int fd, vfs::FileDescription& file, const epoll_event& event);
  Result<> Remove(int fd, vfs::FileDescription& file);
  // What was asked for; nullopt if nothing.
  std::optional<epoll_event> Find(int fd, const vfs::FileDescription& file) const;

  // The file that is watched with this key, for those who keep no reference; null if it is not (any more).
  RefPtr<vfs::FileDescription> Watched(int fd, const vfs::FileDescription* file) const;

  // Events that hold now, as many as there is room for, at most one of each interest: how many there are.
  // Level-triggered ones stay ready. Does not block.
  size_t Take(std::span<epoll_event> events);

  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<size_t> Write(IoSequence&, vfs::IoFlags) override { return Err(EINVAL); }
  Result<uint64_t> Seek(int64_t, int) override { return 0; }  // Linux: noop_llseek
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { queue_.Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  struct Candidate;
  struct Candidates;  // a vector with room for a few
  struct Interest;
  using Key = std::pair<int, const vfs::FileDescription*>;

  // From a file's wait queue: its lock is held.
  void MarkReady(Interest& interest);
  // Makes the interest ready if its file is.
  void RecheckInterest(const Key& key, vfs::FileDescription& file);
  void DropInterestLocked(Interest& interest) REQUIRES(mu_);
  // Interests on the ready list with a reference to their files, taken off it if `remove`.
  Candidates ReadyCandidates(size_t limit, bool remove) const;
  static int DepthOf(const Epoll& epoll, const Epoll* forbidden, int limit);
  // The description dies.
  static void ForgetFile(vfs::FileDescription& file);

  const uint32_t owner_;
  // The interest list; before ready_mu_.
  mutable sync::Mutex mu_{sync::Rank::kEpoll};
  std::map<Key, std::unique_ptr<Interest>> interests_ GUARDED_BY(mu_);
  std::atomic<uint64_t> takes_{0};  // calls of Take
  // Taken inside files' wait queues.
  mutable sync::Mutex ready_mu_{sync::Rank::kEpollReady};
  struct ReadyList;
  const std::unique_ptr<ReadyList> ready_ PT_GUARDED_BY(ready_mu_);
  waiter::Queue queue_;
};

RefPtr<vfs::FileDescription> Make(uint32_t owner);

}  // namespace redoubt::epoll

#endif  // REDOUBT_PKG_SENTRY_EPOLL_EPOLL_H_
