#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "pkg/sentry/socket/inet/link_events.h"

namespace redoubt::inetsock {
namespace {

// Of the time-stamp counter: some 10 us and 1 ms.
constexpr uint64_t kShortest = 25'000;
constexpr uint64_t kLongest = 2'500'000;
constexpr timespec kPatience{.tv_sec = 0, .tv_nsec = 1'000'000};

Result<> Watch(int epoll_fd, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) return ErrFromHost();
  return {};
}

void CountUp(int event_fd) {
  uint64_t one = 1;
  // SAFETY: 8 bytes from a local; it fails only when the counter is full, after 2^64 of these.
  (void)!write(event_fd, &one, sizeof(one));
}

class LinkReceiver final : public LinkEvents::Receiver {
 public:
  explicit LinkReceiver(netstack::FdLink& link) : link_(link) {}
  Taken Receive(size_t most) override {
    const uint64_t before = link_.stats().received.load(std::memory_order_relaxed);
    const bool more = link_.DispatchReady(most);
    return {.any = link_.stats().received.load(std::memory_order_relaxed) != before, .more = more};
  }

 private:
  netstack::FdLink& link_;
};

}  // namespace

Result<std::unique_ptr<LinkEvents>> LinkEvents::Create(fiber::EventSource* other) {
  std::unique_ptr<LinkEvents> events(new LinkEvents(other));
  TRY(events->Init());
  return events;
}

Result<> LinkEvents::Init() {
  interval_ = kShortest;
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return ErrFromHost();
  event_fd_ = other_ != nullptr ? other_->event_fd() : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) return ErrFromHost();
  TRY(Watch(epoll_fd_, other_ != nullptr ? other_->wake_fd() : event_fd_));
  guard_epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  guard_stop_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (guard_epoll_fd_ < 0 || guard_stop_ < 0) return ErrFromHost();
  return Watch(guard_epoll_fd_, guard_stop_);
}

LinkEvents::~LinkEvents() {
  if (guard_.joinable()) {
    CountUp(guard_stop_);
    guard_.join();
  }
  for (int fd : {epoll_fd_, guard_epoll_fd_, guard_stop_}) {
    if (fd >= 0) close(fd);
  }
  if (event_fd_ >= 0 && other_ == nullptr) close(event_fd_);
}

Result<> LinkEvents::Add(int fd, netstack::FdLink& link) { return Add(fd, std::make_unique<LinkReceiver>(link)); }

Result<> LinkEvents::Add(int fd, std::unique_ptr<Receiver> receiver) {
  sync::MutexLock lock(add_mu_);
  const size_t n = link_count_.load(std::memory_order_relaxed);
  if (n == kMaxLinks) return Err(ENOSPC);
  links_[n] = std::move(receiver);
  link_count_.store(n + 1, std::memory_order_release);
  TRY(Watch(epoll_fd_, fd));
  TRY(Watch(guard_epoll_fd_, fd));
  if (!guard_.joinable()) guard_ = std::thread([this] { GuardMain(); });
  return {};
}

bool LinkEvents::Look() {
  if (looking_.exchange(true, std::memory_order_acquire)) return false;
  looks_.fetch_add(1, std::memory_order_relaxed);
  bool any = false, more = false;
  const size_t n = link_count_.load(std::memory_order_acquire);
  for (size_t i = 0; i < n; i++) {
    const Receiver::Taken taken = links_[i]->Receive(kFramesPerLook);
    more |= taken.more;
    any |= taken.any;
  }
  interval_ = any ? kShortest : std::min(2 * interval_, kLongest);
  next_look_.store(more ? 0 : __builtin_ia32_rdtsc() + interval_, std::memory_order_relaxed);
  looking_.store(false, std::memory_order_release);
  looking_.notify_all();
  return any;
}

bool LinkEvents::Poll() {
  bool others = other_ != nullptr && other_->Poll();
  if (link_count_.load(std::memory_order_relaxed) == 0) return others;
  if (__builtin_ia32_rdtsc() < next_look_.load(std::memory_order_relaxed)) return others;
  return Look() || others;
}

void LinkEvents::SetAsleep(bool asleep) {
  // Links need no announcement: as long as there is something to receive, wake_fd() is readable.
  if (other_ != nullptr) other_->SetAsleep(asleep);
}

void LinkEvents::Drain() {
  if (other_ != nullptr) {
    other_->Drain();
  } else {
    uint64_t count;
    // SAFETY: 8 bytes into a local; EAGAIN if nothing was counted.
    (void)!read(event_fd_, &count, sizeof(count));
  }
  // While another thread is at it, wake_fd() may stay readable, and this one would come back again and again.
  looking_.wait(true, std::memory_order_acquire);
  Look();
}

void LinkEvents::Wake() {
  if (other_ != nullptr) {
    other_->Wake();
  } else {
    CountUp(event_fd_);
  }
}

int64_t LinkEvents::SpinTime() { return other_ != nullptr ? other_->SpinTime() : 0; }

void LinkEvents::GuardMain() {
  pthread_setname_np(pthread_self(), "runsc-net");
  while (true) {
    epoll_event event;
    int n = epoll_wait(guard_epoll_fd_, &event, 1, -1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || event.data.fd == guard_stop_) return;
    const uint64_t looks = looks_.load(std::memory_order_relaxed);
    // A call that the Sentry makes anyway, where nanosleep(2) would be one more for its filter to allow.
    pollfd stop{.fd = guard_stop_, .events = POLLIN, .revents = 0};
    if (ppoll(&stop, 1, &kPatience, nullptr) > 0) return;
    if (looks_.load(std::memory_order_relaxed) == looks) Look();
  }
}

}  // namespace redoubt::inetsock
