// Turns samples of the time-stamp counter and the host's clocks into a line that guests can evaluate by themselves.
#ifndef REDOUBT_PKG_SENTRY_LOADER_VDSO_TSC_CLOCK_H_
#define REDOUBT_PKG_SENTRY_LOADER_VDSO_TSC_CLOCK_H_

#include <cstdint>
#include <optional>

namespace redoubt::loader {

struct ClockSample {
  uint64_t tsc = 0;
  int64_t monotonic = 0;  // ns
  int64_t realtime = 0;
  int64_t boottime = 0;
};

// As published: see vvar.h.
struct ClockParameters {
  bool usable = false;
  uint64_t base_tsc = 0;
  uint64_t mult = 0;
  int64_t monotonic_base = 0;
  int64_t realtime_offset = 0;
  int64_t boottime_offset = 0;

  int64_t MonotonicAt(uint64_t tsc) const;
};

// Fed about every kInterval. What it publishes never lets monotonic time go back: an error found at a sample is worked
// off until the next one by a steeper or flatter line. No locking.
class TscClock final {
 public:
  static constexpr int64_t kInterval = 1'000'000'000;  // ns
  static constexpr int64_t kMinimumBaseline = 1'000'000;

  // The parameters to publish from now on. Not usable: after the first sample, and after one that contradicts the rest
  // (the counter stopped or jumped); the next good ones repair it.
  const ClockParameters& Add(const ClockSample& sample);
  const ClockParameters& parameters() const { return parameters_; }

 private:
  std::optional<ClockSample> last_;
  ClockParameters parameters_;
};

// Whether this host's counter may serve: it runs at one rate whatever the processor does.
bool TscIsInvariant();
// A sample of all clocks at one instant, as near as can be had.
ClockSample SampleClocks();

}  // namespace redoubt::loader

#endif  // REDOUBT_PKG_SENTRY_LOADER_VDSO_TSC_CLOCK_H_
