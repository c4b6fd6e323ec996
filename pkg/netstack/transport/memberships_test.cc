#include "pkg/netstack/transport/memberships.h"

#include <gtest/gtest.h>

namespace redoubt::netstack {
namespace {

using Change = Memberships::Change;
using Outcome = Memberships::Outcome;

const Address kGroup = Address::Ipv4(239, 1, 1, 1);
Address Source(int n) { return Address::Ipv4(10, 0, 0, static_cast<uint8_t>(n)); }

int Error(const auto& r) { return r ? 0 : r.error().value(); }

struct MembershipsTest : ::testing::Test {
  Memberships m;
  int Add(int source, SourceMode mode) { return Error(m.ChangeSource(kGroup, 1, Source(source), mode, Change::kAdd)); }
  int Remove(int source, SourceMode mode) {
    return Error(m.ChangeSource(kGroup, 1, Source(source), mode, Change::kRemove));
  }
  bool Takes(int source) { return m.Find(kGroup, 1)->filter.Allows(Source(source)); }
};

TEST_F(MembershipsTest, AreOfAGroupAndAnInterface) {
  EXPECT_EQ(Error(m.Add(kGroup, 1, SourceMode::kExclude)), 0);
  EXPECT_EQ(Error(m.Add(kGroup, 1, SourceMode::kInclude)), EADDRINUSE);
  EXPECT_EQ(Error(m.Add(kGroup, 2, SourceMode::kExclude)), 0);
  EXPECT_EQ(m.Find(kGroup, 3), nullptr);
  EXPECT_EQ(Error(m.Remove(kGroup, 3)), EADDRNOTAVAIL);
  EXPECT_EQ(m.Remove(kGroup, 2).value_or(0), 2u);
  EXPECT_EQ(m.Remove(kGroup, 0).value_or(0), 1u);
  EXPECT_TRUE(m.all().empty());
  for (size_t i = 0; i < Memberships::kMax; i++) {
    EXPECT_EQ(Error(m.Add(kGroup, static_cast<uint32_t>(i + 1), SourceMode::kExclude)), 0);
  }
  EXPECT_EQ(Error(m.Add(kGroup, 100, SourceMode::kExclude)), ENOBUFS);
}

TEST_F(MembershipsTest, ExcludedSourcesAreNotHeard) {
  EXPECT_EQ(Add(1, SourceMode::kExclude), EINVAL);
  ASSERT_EQ(Error(m.Add(kGroup, 1, SourceMode::kExclude)), 0);
  EXPECT_TRUE(Takes(1));
  EXPECT_EQ(Add(1, SourceMode::kExclude), 0);
  EXPECT_EQ(Add(1, SourceMode::kExclude), EADDRNOTAVAIL);
  EXPECT_EQ(Add(2, SourceMode::kInclude), EINVAL);
  EXPECT_FALSE(Takes(1));
  EXPECT_TRUE(Takes(2));
  EXPECT_EQ(Remove(2, SourceMode::kExclude), EADDRNOTAVAIL);
  EXPECT_EQ(Remove(1, SourceMode::kExclude), 0);
  EXPECT_TRUE(Takes(1));
  // A list that there was keeps its mode, none may change it.
  EXPECT_EQ(Add(2, SourceMode::kInclude), EINVAL);
  ASSERT_EQ(Error(m.SetFilter(kGroup, 1, {})), 0);
  EXPECT_EQ(Add(2, SourceMode::kInclude), 0);
  EXPECT_FALSE(Takes(1));
}

TEST_F(MembershipsTest, IncludedSourcesAloneAreHeard) {
  ASSERT_EQ(Error(m.Add(kGroup, 1, SourceMode::kInclude)), 0);
  EXPECT_FALSE(Takes(1));
  EXPECT_EQ(Add(1, SourceMode::kInclude), 0);
  EXPECT_EQ(Add(2, SourceMode::kInclude), 0);
  EXPECT_TRUE(Takes(1));
  EXPECT_FALSE(Takes(3));
  EXPECT_EQ(Remove(1, SourceMode::kInclude), 0);
  Result<Outcome> last = m.ChangeSource(kGroup, 1, Source(2), SourceMode::kInclude, Change::kRemove);
  ASSERT_TRUE(last);
  EXPECT_EQ(*last, Outcome::kLastRemoved);
}

TEST_F(MembershipsTest, ListsAreBounded) {
  ASSERT_EQ(Error(m.Add(kGroup, 1, SourceMode::kExclude)), 0);
  const int most = static_cast<int>(Memberships::MaxSources(Family::kIpv4));
  for (int i = 0; i < most; i++) EXPECT_EQ(Add(i, SourceMode::kExclude), 0);
  EXPECT_EQ(Add(most, SourceMode::kExclude), ENOBUFS);
  SourceFilter filter{.mode = SourceMode::kInclude, .sources = {}};
  filter.sources.assign(static_cast<size_t>(most), Source(1));
  EXPECT_EQ(Error(m.SetFilter(kGroup, 1, filter)), 0);
  EXPECT_TRUE(Takes(1));
  EXPECT_FALSE(Takes(2));
  EXPECT_EQ(Error(m.SetFilter(kGroup, 2, filter)), EINVAL);
  filter.sources.push_back(Source(2));
  EXPECT_EQ(Error(m.SetFilter(kGroup, 1, filter)), ENOBUFS);
}

}  // namespace
}  // namespace redoubt::netstack
