#include "pkg/sentry/limits/limits.h"

#include <gtest/gtest.h>

namespace redoubt::limits {
namespace {

TEST(Limits, RulesOfSetrlimit) {
  LimitSet l;
  EXPECT_EQ(l.Get(RLIMIT_STACK).soft, 8u << 20);
  EXPECT_EQ(l.Set(RLIMIT_NOFILE, {10, 5}, true).error(), Errno(EINVAL));
  EXPECT_TRUE(l.Set(RLIMIT_NOFILE, {5, 10}, false));
  EXPECT_EQ(l.Set(RLIMIT_NOFILE, {5, 11}, false).error(), Errno(EPERM));
  EXPECT_TRUE(l.Set(RLIMIT_NOFILE, {5, 11}, true));
  LimitSet copy;
  copy.CopyFrom(l);
  EXPECT_EQ(copy.Get(RLIMIT_NOFILE).hard, 11u);
}

}  // namespace
}  // namespace redoubt::limits
