#include "pkg/sentry/auth/user_namespace.h"

#include <gtest/gtest.h>

namespace redoubt::auth {
namespace {

TEST(UserNamespace, HasTheIdsOfItsExtentsAndNoOthers) {
  UserNamespace ns({{0, 100000, 10}, {4294967290, 7, 5}}, {{5, 100005, 1}});
  for (uint32_t uid : {0u, 9u, 4294967290u, 4294967294u}) EXPECT_TRUE(ns.HasUid(uid)) << uid;
  for (uint32_t uid : {10u, 65534u, 4294967289u, 4294967295u}) EXPECT_FALSE(ns.HasUid(uid)) << uid;
  EXPECT_TRUE(ns.HasGid(5));
  EXPECT_FALSE(ns.HasGid(4));
  EXPECT_FALSE(ns.HasGid(6));
}

TEST(UserNamespace, IsShownAsLinuxDoes) {
  UserNamespace ns({{0, 100000, 65536}, {70000, 1000, 1}}, {{0, 5, 1}});
  EXPECT_EQ(ns.UidMap(), "         0     100000      65536\n     70000       1000          1\n");
  EXPECT_EQ(ns.GidMap(), "         0          5          1\n");
  EXPECT_NE(ns.inode(), UserNamespace({}, {}).inode());
}

}  // namespace
}  // namespace redoubt::auth
