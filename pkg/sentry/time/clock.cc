#include "pkg/sentry/time/clock.h"

#include <atomic>

namespace redoubt::clock {
namespace {

// clock_gettime through the host's vDSO: no system call.
template <clockid_t Id>
Nanoseconds HostClock() {
  timespec ts{};
  clock_gettime(Id, &ts);
  return FromTimespec(ts);
}

constexpr Source kHost{HostClock<CLOCK_REALTIME>, HostClock<CLOCK_MONOTONIC>, HostClock<CLOCK_BOOTTIME>};
std::atomic<const Source*> source{&kHost};

}  // namespace

Nanoseconds Realtime() { return source.load(std::memory_order_relaxed)->realtime(); }
Nanoseconds Monotonic() { return source.load(std::memory_order_relaxed)->monotonic(); }
Nanoseconds Boottime() { return source.load(std::memory_order_relaxed)->boottime(); }
void SetSource(const Source* s) { source.store(s != nullptr ? s : &kHost); }

}  // namespace redoubt::clock
