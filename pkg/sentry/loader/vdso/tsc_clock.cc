#include "pkg/sentry/loader/vdso/tsc_clock.h"

#include <algorithm>
#include <cstdlib>

#include "pkg/sentry/loader/vdso/vvar.h"

namespace redoubt::loader {
namespace {

// An error beyond this is not drift but a suspended or moved machine.
constexpr int64_t kMaxError = 5'000'000;

}  // namespace

int64_t ClockParameters::MonotonicAt(uint64_t tsc) const {
  uint64_t delta = tsc > base_tsc ? tsc - base_tsc : 0;
  return monotonic_base + static_cast<int64_t>((static_cast<unsigned __int128>(delta) * mult) >> REDOUBT_VVAR_SHIFT);
}

const ClockParameters& TscClock::Add(const ClockSample& sample) {
  if (!last_) {
    last_ = sample;
    return parameters_;
  }
  int64_t elapsed = sample.monotonic - last_->monotonic;
  if (elapsed < kMinimumBaseline && elapsed >= 0) return parameters_;
  ClockSample before = *last_;
  last_ = sample;
  if (elapsed < 0 || sample.tsc <= before.tsc) {
    parameters_ = {};
    return parameters_;
  }
  unsigned __int128 scaled = static_cast<unsigned __int128>(elapsed) << REDOUBT_VVAR_SHIFT;
  unsigned __int128 rate = scaled / (sample.tsc - before.tsc);
  // Between 100 MHz and 100 GHz.
  if (rate < (uint64_t{1} << REDOUBT_VVAR_SHIFT) / 100 || rate > (uint64_t{10} << REDOUBT_VVAR_SHIFT)) {
    parameters_ = {};
    return parameters_;
  }
  ClockParameters next;
  next.base_tsc = sample.tsc;
  next.mult = static_cast<uint64_t>(rate);
  next.monotonic_base = sample.monotonic;
  next.realtime_offset = sample.realtime - sample.monotonic;
  next.boottime_offset = sample.boottime - sample.monotonic;
  next.usable = true;
  if (parameters_.usable) {
    int64_t published = parameters_.MonotonicAt(sample.tsc);
    int64_t error = sample.monotonic - published;
    if (std::abs(error) > kMaxError) {
      parameters_ = {};
      return parameters_;
    }
    // Goes on from what guests have seen, and meets the truth one interval later.
    next.monotonic_base = published;
    next.mult = static_cast<uint64_t>(static_cast<__int128>(next.mult) * (kInterval + error) / kInterval);
  }
  parameters_ = next;
  return parameters_;
}

}  // namespace redoubt::loader
