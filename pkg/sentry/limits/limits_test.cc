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
  EXPECT_TRUE(l.Set(RLIMIT_NOFILE, {5, kMaxFiles}, true));
  EXPECT_EQ(l.Set(RLIMIT_NOFILE, {5, kMaxFiles + 1}, true).error(), Errno(EPERM));
  EXPECT_EQ(l.Set(RLIMIT_NOFILE, {RLIM_INFINITY, RLIM_INFINITY}, true).error(), Errno(EPERM));
  EXPECT_TRUE(l.Set(RLIMIT_NOFILE, {5, 11}, true));
  LimitSet copy;
  copy.CopyFrom(l);
  EXPECT_EQ(copy.Get(RLIMIT_NOFILE).hard, 11u);
}

}  // namespace
}  // namespace redoubt::limits
