#include "pkg/sentry/auth/credentials.h"

#include <gtest/gtest.h>

namespace redoubt::auth {
namespace {

void SetAllUids(Credentials& c, uint32_t uid) { c.ruid = c.euid = c.suid = c.fsuid = uid; }

TEST(Credentials, LeavingRootDropsCapabilities) {
  RefPtr<Credentials> root = Credentials::Root();
  RefPtr<Credentials> c = root->Clone();
  SetAllUids(*c, 1000);
  c->FixCapabilitiesAfterSetuid(*root);
  EXPECT_EQ(c->permitted, 0u);
  EXPECT_EQ(c->effective, 0u);
  EXPECT_TRUE(root->HasCapability(CAP_SYS_ADMIN));
}

TEST(Credentials, KeepCapsKeepsPermittedOnly) {
  RefPtr<Credentials> root = Credentials::Root();
  RefPtr<Credentials> c = root->Clone();
  c->keep_caps = true;
  SetAllUids(*c, 1000);
  c->FixCapabilitiesAfterSetuid(*root);
  EXPECT_EQ(c->permitted, kAllCapabilities);
  EXPECT_EQ(c->effective, 0u);
}

TEST(Credentials, SetuidBackRaisesEffective) {
  RefPtr<Credentials> c = Credentials::Root();
  RefPtr<Credentials> low = c->Clone();
  low->euid = low->fsuid = 1000;
  low->FixCapabilitiesAfterSetuid(*c);
  EXPECT_FALSE(low->HasCapability(CAP_CHOWN));
  RefPtr<Credentials> back = low->Clone();
  back->euid = back->fsuid = 0;
  back->FixCapabilitiesAfterSetuid(*low);
  EXPECT_TRUE(back->HasCapability(CAP_CHOWN));
}

TEST(Credentials, Groups) {
  RefPtr<Credentials> c = Credentials::ForUser(1, 2, {5, 7}, 0);
  EXPECT_TRUE(c->InGroup(2));
  EXPECT_TRUE(c->InGroup(7));
  EXPECT_FALSE(c->InGroup(6));
}

}  // namespace
}  // namespace redoubt::auth
