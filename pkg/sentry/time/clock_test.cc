#include "pkg/sentry/time/clock.h"

#include <gtest/gtest.h>

namespace redoubt::clock {
namespace {

TEST(Clock, ConversionsRoundTripAndSaturate) {
  EXPECT_EQ(FromTimespec(ToTimespec(1'500'000'001)), 1'500'000'001);
  EXPECT_EQ(ToTimespec(-1).tv_sec, -1);
  EXPECT_EQ(ToTimespec(-1).tv_nsec, 999'999'999);
  EXPECT_EQ(FromTimespec({.tv_sec = INT64_MAX, .tv_nsec = 0}), INT64_MAX);
}

TEST(Clock, MovesForwardAndCanBeReplaced) {
  Nanoseconds a = Monotonic();
  EXPECT_LE(a, Monotonic());
  EXPECT_GT(Realtime(), a);
  static constexpr Source kFixed{[] { return Nanoseconds{1}; }, [] { return Nanoseconds{2}; },
                                 [] { return Nanoseconds{3}; }};
  SetSource(&kFixed);
  EXPECT_EQ(Realtime(), 1);
  EXPECT_EQ(Boottime(), 3);
  SetSource(nullptr);
  EXPECT_GT(Realtime(), 1);
}

}  // namespace
}  // namespace redoubt::clock
