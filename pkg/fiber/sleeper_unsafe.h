// How an OS thread of an executor sleeps and is woken: one futex word.
#ifndef REDOUBT_PKG_FIBER_SLEEPER_UNSAFE_H_
#define REDOUBT_PKG_FIBER_SLEEPER_UNSAFE_H_

#include <atomic>
#include <cstdint>

#include "pkg/fiber/event_source.h"

namespace redoubt::fiber::internal {

// The host's CLOCK_MONOTONIC, nanoseconds.
int64_t HostNow();

// A binary token: Wake puts it, Wait takes it. One waiting thread at a time; any number of wakers. Wake makes no system
// call unless the other side sleeps.
class Sleeper final {
 public:
  Sleeper() = default;
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;

  // Blocks the OS thread until the token is there or CLOCK_MONOTONIC reaches `deadline`. True if it took the token.
  bool Wait(int64_t deadline);
  // As Wait; also returns, false, when the source's descriptor is readable.
  bool WaitFor(EventSource& source, int64_t deadline);
  void Wake();

 private:
  std::atomic<uint32_t> state_{0};
  EventSource* source_ = nullptr;  // set while the state says that this sleeps on its descriptor
};

}  // namespace redoubt::fiber::internal

#endif  // REDOUBT_PKG_FIBER_SLEEPER_UNSAFE_H_
