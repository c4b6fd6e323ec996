#include "runsc/sandbox/namespace_guard.h"

#include <gtest/gtest.h>

namespace redoubt::sandbox {
namespace {

constexpr NamespaceId kMachine{4, 100}, kContainer{4, 200}, kOther{4, 300};
using Choice = NamespaceChoice;

// With made-up namespaces only: nothing here can touch a real one.
TEST(NamespaceGuard, AContainersOwnIsTaken) {
  EXPECT_TRUE(CheckTakeable(Choice::kPath, {kContainer, false, kMachine, kMachine}));
  EXPECT_TRUE(CheckTakeable(Choice::kPath, {kContainer, false, kMachine, kOther}));
  EXPECT_TRUE(CheckTakeable(Choice::kCurrent, {kContainer, false, kMachine, kContainer}));
}

TEST(NamespaceGuard, TheMachinesIsRefusedWithARemedy) {
  for (Choice choice : {Choice::kPath, Choice::kCurrent}) {
    for (NamespaceId caller : {kMachine, kContainer}) {
      // By its number, by being the first one, by both.
      for (const NamespaceEvidence& e :
           {NamespaceEvidence{kMachine, false, kMachine, caller}, NamespaceEvidence{kMachine, true, kContainer, caller},
            NamespaceEvidence{kMachine, true, kMachine, caller}}) {
        specutils::Expected<void> r = CheckTakeable(choice, e);
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error(),
                  "--network=sandbox: this is the machine's own network namespace, whose addresses would be taken "
                  "from the machine; use --network=none, or name a network namespace of the container's own in "
                  "config.json, linux.namespaces");
      }
    }
  }
}

TEST(NamespaceGuard, APathToTheCallersIsRefused) {
  specutils::Expected<void> r = CheckTakeable(Choice::kPath, {kContainer, false, kMachine, kContainer});
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().find("runsc itself runs in"), std::string::npos);
}

TEST(NamespaceGuard, WhatCannotBeReadIsRefused) {
  for (Choice choice : {Choice::kPath, Choice::kCurrent}) {
    EXPECT_FALSE(CheckTakeable(choice, {std::nullopt, false, kMachine, kOther}));
    EXPECT_FALSE(CheckTakeable(choice, {kContainer, std::nullopt, kMachine, kOther}));
    EXPECT_FALSE(CheckTakeable(choice, {kContainer, false, std::nullopt, kOther}));
    EXPECT_FALSE(CheckTakeable(choice, {kContainer, false, kMachine, std::nullopt}));
  }
}

TEST(NamespaceGuard, OneNumberOnAnotherDeviceIsAnother) {
  EXPECT_TRUE(CheckTakeable(Choice::kPath, {NamespaceId{5, 100}, false, kMachine, kMachine}));
}

TEST(NamespaceGuard, FilesThatAreNoNamespace) {
  EXPECT_FALSE(NamespaceOfFile("/dev/null"));
  EXPECT_FALSE(NamespaceOfFile("/proc/self/none"));
  EXPECT_TRUE(NamespaceOfFile("/proc/self/ns/net"));
  EXPECT_FALSE(NamespaceOfFd(-1));
}

}  // namespace
}  // namespace redoubt::sandbox
