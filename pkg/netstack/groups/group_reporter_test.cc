#include "pkg/netstack/groups/group_reporter.h"

#include <gtest/gtest.h>

namespace redoubt::netstack {
namespace {

using Version = GroupReporter::Version;
using Record = GroupReporter::Record;
const Address kGroup = Address::Ipv4(239, 1, 2, 3);
const Address kOther = Address::Ipv4(239, 1, 2, 4);
const Address kAll = Address::Any(Family::kIpv4);

struct GroupReporterTest : testing::Test, GroupReporter::Delegate {
  struct Sent {
    Version version;
    Address group;
    Record record;
    Time at;
  };
  ~GroupReporterTest() override { r->Close(); }
  void SendReport(uint32_t, Version version, const Address& group, Record record) override {
    reports.push_back({version, group, record, clock.Now()});
  }
  void SendLeave(uint32_t, const Address&) override { leaves++; }
  void Advance(Time by) {
    Time end = clock.Now() + by;
    while (timers.NextDeadline() <= end) {
      clock.SetNow(std::max(clock.Now(), timers.NextDeadline()));
      timers.RunTimers(clock.Now());
    }
    clock.SetNow(end);
  }
  VirtualClock clock;
  SeededRandom random{4};
  TimerQueue timers;
  std::vector<Sent> reports;
  int leaves = 0;
  RefPtr<GroupReporter> r = MakeRef<GroupReporter>(clock, random, timers, *this);
};

TEST_F(GroupReporterTest, JoinAndLeaveAreToldTwiceInVersion3) {
  r->Joined(1, kGroup);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].record, Record::kToExclude);
  EXPECT_EQ(reports[0].version, Version::k3);
  Advance(kSecond);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[1].record, Record::kToExclude);
  Advance(100 * kSecond);
  EXPECT_EQ(reports.size(), 2u);
  r->Left(1, kGroup);
  Advance(kSecond);
  ASSERT_EQ(reports.size(), 4u);
  EXPECT_EQ(reports[3].record, Record::kToInclude);
  EXPECT_EQ(leaves, 0);
  r->Query(1, Version::k3, kAll, 10 * kSecond);
  Advance(100 * kSecond);
  EXPECT_EQ(reports.size(), 4u);
}

TEST_F(GroupReporterTest, QueriesAreAnsweredInTime) {
  r->Joined(1, kGroup);
  r->Joined(1, kOther);
  r->Joined(2, kGroup);
  Advance(10 * kSecond);
  reports.clear();
  Time asked = clock.Now();
  r->Query(1, Version::k3, kAll, 10 * kSecond);
  Advance(10 * kSecond);
  ASSERT_EQ(reports.size(), 2u);
  for (auto& s : reports) {
    EXPECT_EQ(s.record, Record::kIsExclude);
    EXPECT_LE(s.at, asked + 10 * kSecond);
  }
  reports.clear();
  r->Query(1, Version::k3, kOther, kSecond);
  Advance(kSecond);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].group, kOther);
}

TEST_F(GroupReporterTest, OlderQuerierIsFollowedUntilItFallsSilent) {
  r->Joined(1, kGroup);
  Advance(10 * kSecond);
  reports.clear();
  r->Query(1, Version::k2, kAll, 10 * kSecond);
  Advance(10 * kSecond);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].version, Version::k2);
  r->Query(1, Version::k2, kAll, 10 * kSecond);
  r->HeardReport(1, kGroup);  // suppresses ours
  Advance(10 * kSecond);
  EXPECT_EQ(reports.size(), 1u);
  r->Left(1, kGroup);
  EXPECT_EQ(leaves, 1);
  Advance(GroupReporter::kOlderVersionPresent);
  r->Joined(1, kGroup);
  EXPECT_EQ(reports.back().version, Version::k3);
  r->Query(1, Version::k1, kAll, 10 * kSecond);
  r->Left(1, kGroup);  // version 1 leaves in silence
  EXPECT_EQ(leaves, 1);
}

TEST_F(GroupReporterTest, AnInterfaceThatGoesDownSaysNothing) {
  r->Joined(1, kGroup);
  r->InterfaceDown(1);
  reports.clear();
  Advance(100 * kSecond);
  EXPECT_TRUE(reports.empty());
}

}  // namespace
}  // namespace redoubt::netstack
