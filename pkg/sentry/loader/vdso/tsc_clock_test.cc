#include "pkg/sentry/loader/vdso/tsc_clock.h"

#include <gtest/gtest.h>

#include <random>

namespace redoubt::loader {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

// A host whose counter runs at `hz`.
struct Host {
  double hz = 2.5e9;
  int64_t monotonic = 1000 * kSecond;
  uint64_t tsc = 123456789;

  ClockSample Advance(int64_t ns) {
    monotonic += ns;
    tsc += static_cast<uint64_t>(static_cast<double>(ns) * hz / 1e9);
    return Sample();
  }
  ClockSample Sample() const { return {tsc, monotonic, monotonic + 7 * kSecond, monotonic + 3}; }
};

TEST(TscClock, NeedsTwoSamples) {
  Host host;
  TscClock clock;
  EXPECT_FALSE(clock.Add(host.Sample()).usable);
  EXPECT_FALSE(clock.Add(host.Advance(10)).usable) << "too near for a rate";
  const ClockParameters& p = clock.Add(host.Advance(10'000'000));
  ASSERT_TRUE(p.usable);
  EXPECT_EQ(p.realtime_offset, 7 * kSecond);
  EXPECT_EQ(p.boottime_offset, 3);
  host.Advance(kSecond);
  EXPECT_NEAR(static_cast<double>(p.MonotonicAt(host.tsc) - host.monotonic), 0, 1000);
}

TEST(TscClock, NeverGoesBackAndConverges) {
  std::mt19937_64 random(1);
  Host host;
  TscClock clock;
  clock.Add(host.Sample());
  clock.Add(host.Advance(10'000'000));
  int64_t last = 0;
  for (int i = 0; i < 300; i++) {
    // Drifts up to 100 ppm, samples off by up to a microsecond.
    host.hz = 2.5e9 * (1 + (static_cast<double>(random() % 201) - 100) * 1e-6);
    for (int step = 0; step < 10; step++) {
      host.Advance(kSecond / 10);
      int64_t now = clock.parameters().MonotonicAt(host.tsc);
      EXPECT_GT(now, last);
      last = now;
    }
    ClockSample sample = host.Sample();
    sample.monotonic += static_cast<int64_t>(random() % 2001) - 1000;
    ASSERT_TRUE(clock.Add(sample).usable);
    int64_t now = clock.parameters().MonotonicAt(host.tsc);
    EXPECT_GE(now, last - 1) << "rounding alone";
    EXPECT_NEAR(static_cast<double>(now - host.monotonic), 0, 500'000);
  }
}

TEST(TscClock, CounterThatJumpsIsNotUsedUntilItIsRegularAgain) {
  Host host;
  TscClock clock;
  clock.Add(host.Sample());
  ASSERT_TRUE(clock.Add(host.Advance(kSecond)).usable);
  host.tsc += 100 * 2500000000ull;
  EXPECT_FALSE(clock.Add(host.Advance(kSecond)).usable);
  EXPECT_TRUE(clock.Add(host.Advance(kSecond)).usable);
  host.tsc = 5;  // backwards
  EXPECT_FALSE(clock.Add(host.Advance(kSecond)).usable);
  ASSERT_TRUE(clock.Add(host.Advance(kSecond)).usable);
  EXPECT_NEAR(static_cast<double>(clock.parameters().MonotonicAt(host.tsc) - host.monotonic), 0, 100);
  host.monotonic += kSecond / 2;  // the clock jumped
  EXPECT_FALSE(clock.Add(host.Advance(kSecond)).usable);
}

TEST(TscClock, HostSamplesAreNearItsClocks) {
  ClockSample a = SampleClocks();
  ClockSample b = SampleClocks();
  EXPECT_GT(b.tsc, a.tsc);
  EXPECT_GE(b.monotonic, a.monotonic);
  EXPECT_LT(b.monotonic - a.monotonic, kSecond);
}

}  // namespace
}  // namespace redoubt::loader
