#include "pkg/fiber/sleeper_unsafe.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <limits>

#include "pkg/log/log.h"

namespace redoubt::fiber::internal {
namespace {

constexpr uint32_t kEmpty = 0;
constexpr uint32_t kToken = 1;
constexpr uint32_t kSleeping = 2;
constexpr uint32_t kSleepingOnSource = 3;
constexpr int64_t kNanosPerSecond = 1'000'000'000;

}  // namespace

int64_t HostNow() {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * kNanosPerSecond + ts.tv_nsec;
}

bool Sleeper::Wait(int64_t deadline) {
  timespec ts;
  timespec* timeout = nullptr;
  if (deadline != std::numeric_limits<int64_t>::max()) {
    if (deadline < 0) deadline = 0;
    ts.tv_sec = deadline / kNanosPerSecond;
    ts.tv_nsec = deadline % kNanosPerSecond;
    timeout = &ts;
  }
  uint32_t expected = kEmpty;
  state_.compare_exchange_strong(expected, kSleeping, std::memory_order_acquire);
  for (;;) {
    if (state_.load(std::memory_order_relaxed) == kToken) break;
    // SAFETY: the word lives as long as this thread waits. FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time.
    long rc =
        syscall(SYS_futex, &state_, FUTEX_WAIT_BITSET_PRIVATE, kSleeping, timeout, nullptr, FUTEX_BITSET_MATCH_ANY);
    if (rc == 0 || errno == EAGAIN || errno == EINTR) continue;
    CHECK(errno == ETIMEDOUT, "futex");
    break;
  }
  // Takes the token, also one that came just with the time-out.
  return state_.exchange(kEmpty, std::memory_order_acquire) == kToken;
}

bool Sleeper::WaitFor(EventSource& source, int64_t deadline) {
  source_ = &source;
  uint32_t expected = kEmpty;
  if (state_.compare_exchange_strong(expected, kSleepingOnSource, std::memory_order_acq_rel)) {
    timespec ts{};
    if (deadline != std::numeric_limits<int64_t>::max()) {
      int64_t left = deadline - HostNow();
      if (left < 0) left = 0;
      ts.tv_sec = left / kNanosPerSecond;
      ts.tv_nsec = left % kNanosPerSecond;
    }
    pollfd p{.fd = source.wake_fd(), .events = POLLIN, .revents = 0};
    // SAFETY: an early return is a look too many and no more.
    (void)ppoll(&p, 1, deadline == std::numeric_limits<int64_t>::max() ? nullptr : &ts, nullptr);
  }
  return state_.exchange(kEmpty, std::memory_order_acquire) == kToken;
}

void Sleeper::Wake() {
  uint32_t before = state_.exchange(kToken, std::memory_order_acq_rel);
  if (before == kSleepingOnSource) source_->Wake();
  if (before != kSleeping) return;
  // SAFETY: a wake on an address whose Sleeper has just died wakes nobody, or somebody who looks again.
  syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace redoubt::fiber::internal
