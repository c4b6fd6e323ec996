#include <cpuid.h>

#include <cstdint>

#include "pkg/sentry/loader/vdso/tsc_clock.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::loader {
namespace {

// SAFETY: reads a counter.
uint64_t ReadTsc() {
  uint32_t low, high;
  asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t{high} << 32) | low;
}

}  // namespace

bool TscIsInvariant() {
  uint32_t a, b, c, d;
  constexpr uint32_t kInvariant = 1 << 8;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & kInvariant) != 0;
}

ClockSample SampleClocks() {
  ClockSample best;
  uint64_t best_width = UINT64_MAX;
  // The narrowest bracket of a few: the others were interrupted.
  for (int i = 0; i < 5; i++) {
    uint64_t before = ReadTsc();
    int64_t monotonic = clock::Monotonic();
    uint64_t after = ReadTsc();
    if (after - before >= best_width) continue;
    best_width = after - before;
    best.tsc = before + best_width / 2;
    best.monotonic = monotonic;
  }
  int64_t before = clock::Monotonic();
  best.realtime = clock::Realtime();
  best.boottime = clock::Boottime();
  int64_t middle = before + (clock::Monotonic() - before) / 2;
  best.realtime -= middle - best.monotonic;
  best.boottime -= middle - best.monotonic;
  return best;
}

}  // namespace redoubt::loader
