#include "pkg/sentry/limits/system.h"

#include <gtest/gtest.h>

namespace redoubt::limits {
namespace {

TEST(UserCount, EachUserHasItsOwn) {
  UserCount count;
  EXPECT_TRUE(count.Charge(1, 3, 4));
  EXPECT_FALSE(count.Charge(1, 2, 4));
  EXPECT_EQ(count.Of(1), 3u);
  EXPECT_TRUE(count.Charge(2, 4, 4));
  EXPECT_TRUE(count.Charge(1, 1, 4));
  EXPECT_FALSE(count.Charge(3, UINT64_MAX, 4));
  count.Uncharge(1, 4);
  EXPECT_EQ(count.Of(1), 0u);
  EXPECT_EQ(count.Of(2), 4u);
}

TEST(System, ScalesWithMemory) {
  System system;
  system.ScaleTo(uint64_t{4} << 30);
  EXPECT_EQ(system.file_max, 419430);
  EXPECT_EQ(system.threads_max, System::kMostThreads);
  system.ScaleTo(64 << 20);
  EXPECT_EQ(system.threads_max, 512);
  EXPECT_EQ(system.file_max, 8192);
}

}  // namespace
}  // namespace redoubt::limits
