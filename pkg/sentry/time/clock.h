// The clocks of the sandbox, in nanoseconds, replaceable as a whole (tests, restored sandboxes).
#ifndef REDOUBT_PKG_SENTRY_TIME_CLOCK_H_
#define REDOUBT_PKG_SENTRY_TIME_CLOCK_H_

#include <time.h>

#include <cstdint>

namespace redoubt::clock {

using Nanoseconds = int64_t;

// CLOCK_REALTIME: since the epoch.
Nanoseconds Realtime();
// CLOCK_MONOTONIC, the executor's clock (fiber::Now) is the same one.
Nanoseconds Monotonic();
// CLOCK_BOOTTIME.
Nanoseconds Boottime();

// For accounting on hot paths: the processor's time-stamp counter, which costs a fraction of a clock.
inline uint64_t Cycles() { return __builtin_ia32_rdtsc(); }
// By the counter's rate since the process began to ask. Of the host, whatever SetSource says.
Nanoseconds FromCycles(uint64_t cycles);

constexpr timespec ToTimespec(Nanoseconds ns) {
  int64_t sec = ns / 1'000'000'000;
  int64_t rem = ns % 1'000'000'000;
  if (rem < 0) {
    rem += 1'000'000'000;
    sec--;
  }
  return {.tv_sec = sec, .tv_nsec = rem};
}
// Saturates. The caller has checked that tv_nsec is in [0, 1e9) and tv_sec >= 0 where the ABI demands it.
constexpr Nanoseconds FromTimespec(const timespec& ts) {
  int64_t ns = 0;
  if (__builtin_mul_overflow(ts.tv_sec, int64_t{1'000'000'000}, &ns) || __builtin_add_overflow(ns, ts.tv_nsec, &ns)) {
    return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
  }
  return ns;
}

// Replaces all three; null restores the host's. Not while fibers run.
struct Source {
  Nanoseconds (*realtime)();
  Nanoseconds (*monotonic)();
  Nanoseconds (*boottime)();
};
void SetSource(const Source* source);

}  // namespace redoubt::clock

#endif  // REDOUBT_PKG_SENTRY_TIME_CLOCK_H_
