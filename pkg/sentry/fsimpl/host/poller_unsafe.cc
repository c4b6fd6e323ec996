#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "pkg/log/log.h"
#include "pkg/sentry/fsimpl/host/poller.h"

namespace redoubt::host {

Poller& Poller::Get() {
  static Poller* const poller = new Poller();
  return *poller;
}

Poller::Poller() : epoll_fd_(::epoll_create1(EPOLL_CLOEXEC)) { CHECK(epoll_fd_ >= 0, "no descriptor for the poller"); }

void Poller::LeaveToCaller() {
  sync::MutexLock lock(mu_);
  CHECK(!thread_, "the poller has a thread already");
  thread_ = true;
}

void Poller::Start() {
  sync::MutexLock lock(mu_);
  StartLocked();
}

void Poller::StartLocked() {
  if (std::exchange(thread_, true)) return;
  std::thread([this] {
    // Signals are for the threads that expect them.
    sigset_t all;
    ::sigfillset(&all);
    // But for those that the thread itself causes: blocked, they would kill without a report.
    for (int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS}) ::sigdelset(&all, fault);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    ::pthread_setname_np(::pthread_self(), "host-poller");
    Run();
  }).detach();
}

uint64_t Poller::Add(int fd, waiter::Queue& queue) {
  sync::MutexLock lock(mu_);
  StartLocked();
  const uint64_t id = next_id_++;
  // Edge-triggered: every change is told once, however long nobody asks.
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, .data = {.u64 = id}};
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) return 0;
  queues_.emplace(id, &queue);
  return id;
}

void Poller::Remove(uint64_t id, int fd) {
  if (id == 0) return;
  sync::MutexLock lock(mu_);
  queues_.erase(id);
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
}

size_t Poller::Look(size_t most) { return Tell(most, 0); }

void Poller::Run() {
  while (true) (void)Tell(kMostAtOnce, -1);
}

size_t Poller::Tell(size_t most, int timeout) {
  epoll_event events[kMostAtOnce];
  const int n = ::epoll_wait(epoll_fd_, events, static_cast<int>(std::min(most, kMostAtOnce)), timeout);
  if (n < 0) {
    CHECK(errno == EINTR, "epoll_wait failed");
    return 0;
  }
  if (n == 0) return 0;
  sync::MutexLock lock(mu_);
  for (int i = 0; i < n; i++) {
    auto it = queues_.find(events[i].data.u64);
    // The bits of epoll are those of poll; readable and writable come with their "normal" twins.
    waiter::EventMask mask = events[i].events & ~EPOLLET;
    if (mask & EPOLLIN) mask |= waiter::kRdNorm;
    if (mask & EPOLLOUT) mask |= waiter::kWrNorm;
    if (it != queues_.end()) it->second->Notify(mask);
  }
  return static_cast<size_t>(n);
}

}  // namespace redoubt::host
