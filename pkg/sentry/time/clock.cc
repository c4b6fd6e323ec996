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

struct Start {
  uint64_t cycles = Cycles();
  Nanoseconds monotonic = HostClock<CLOCK_MONOTONIC>();
};
const Start start;

}  // namespace

Nanoseconds FromCycles(uint64_t cycles) {
  const uint64_t passed = Cycles() - start.cycles;
  const Nanoseconds elapsed = HostClock<CLOCK_MONOTONIC>() - start.monotonic;
  if (passed == 0 || elapsed <= 0) return 0;
  return static_cast<Nanoseconds>(static_cast<unsigned __int128>(cycles) * static_cast<uint64_t>(elapsed) / passed);
}

Nanoseconds Realtime() { return source.load(std::memory_order_relaxed)->realtime(); }
Nanoseconds Monotonic() { return source.load(std::memory_order_relaxed)->monotonic(); }
Nanoseconds Boottime() { return source.load(std::memory_order_relaxed)->boottime(); }
void SetSource(const Source* s) { source.store(s != nullptr ? s : &kHost); }

}  // namespace redoubt::clock
