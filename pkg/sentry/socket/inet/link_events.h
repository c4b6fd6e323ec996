// Frames of host descriptors, and what else comes by descriptors, received by the threads of the executor: an event
// source in front of another.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_LINK_EVENTS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_LINK_EVENTS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "pkg/errors/errors.h"
#include "pkg/fiber/event_source.h"
#include "pkg/netstack/link/fd_link.h"
#include "pkg/sync/mutex.h"

namespace redoubt::inetsock {

// Who receives. A thread that sleeps on wake_fd() wakes when a frame comes, and delivers. Threads that are awake look
// between fibers, each look a host call, and therefore not each time: soon again after a look that found something,
// more and more seldom after looks in vain. If every thread is with a guest that calls and calls and never parks,
// nobody looks; then the guard does, a thread of its own that otherwise sleeps, after a millisecond.
//
// A look delivers at most kFramesPerLook frames of each link, whose protocols run in the thread that looks, so that
// guests get their turns under any flood.
class LinkEvents final : public fiber::EventSource {
 public:
  static constexpr size_t kMaxLinks = 64;
  static constexpr size_t kFramesPerLook = 64;

  // Takes what a descriptor has to give.
  class Receiver {
   public:
    virtual ~Receiver() = default;
    // About `most` of it; called by one thread at a time, with no lock held.
    struct Taken {
      bool any = false;
      bool more = false;  // perhaps
    };
    virtual Taken Receive(size_t most) = 0;
  };

  // `other` outlives this; may be null. Errors of epoll_create1(2) and eventfd(2).
  static Result<std::unique_ptr<LinkEvents>> Create(fiber::EventSource* other);
  ~LinkEvents() override;

  // From now on receives for `link`, whose descriptor is `fd`; both outlive this. ENOSPC; errors of epoll_ctl(2). Any
  // thread, also while the executor runs.
  Result<> Add(int fd, netstack::FdLink& link) EXCLUDES(add_mu_);
  // The same for another receiver; `fd` is readable as long as there is something.
  Result<> Add(int fd, std::unique_ptr<Receiver> receiver) EXCLUDES(add_mu_);

  // fiber::EventSource
  bool Poll() override;
  void SetAsleep(bool asleep) override;
  void Drain() override;
  int wake_fd() const override { return epoll_fd_; }
  void Wake() override;
  int event_fd() const override { return event_fd_; }
  int64_t SpinTime() override;

 private:
  explicit LinkEvents(fiber::EventSource* other) : other_(other) {}
  Result<> Init();
  bool Look();
  void GuardMain();

  fiber::EventSource* const other_;
  int epoll_fd_ = -1;        // the other source's wake_fd(), or event_fd_, and all links
  int guard_epoll_fd_ = -1;  // links, and guard_stop_
  int event_fd_ = -1;        // the other source's if there is one
  int guard_stop_ = -1;

  sync::Mutex add_mu_{sync::Rank::kLeaf};
  std::array<std::unique_ptr<Receiver>, kMaxLinks> links_;  // append only; those below link_count_ are for all to see
  std::atomic<size_t> link_count_{0};
  std::thread guard_;

  // One thread looks at a time; another need not wait for it, since what it leaves keeps wake_fd() readable.
  std::atomic<bool> looking_{false};
  // Of the time-stamp counter.
  std::atomic<uint64_t> next_look_{0};
  uint64_t interval_;               // until the next look; the looking thread's
  std::atomic<uint64_t> looks_{0};  // so far
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_LINK_EVENTS_H_
