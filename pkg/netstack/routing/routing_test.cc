#include <gtest/gtest.h>

#include <random>

#include "pkg/netstack/routing/path_mtu.h"
#include "pkg/netstack/routing/routing_table.h"

namespace redoubt::netstack {
namespace {

Address A(std::string_view t) { return *Address::Parse(t); }
Prefix P(std::string_view t, uint8_t n) { return {A(t), n}; }
auto kAny = [](const RouteEntry&) { return true; };

TEST(RoutingTable, LongestPrefixThenMetric) {
  RoutingTable t;
  ASSERT_TRUE(t.Add({.destination = P("0.0.0.0", 0), .gateway = A("10.0.0.1"), .interface_index = 1, .metric = 100}));
  ASSERT_TRUE(t.Add({.destination = P("0.0.0.0", 0), .gateway = A("10.0.0.2"), .interface_index = 2, .metric = 50}));
  ASSERT_TRUE(t.Add({.destination = P("10.0.0.0", 8), .interface_index = 1}));
  ASSERT_TRUE(t.Add({.destination = P("10.1.0.0", 16), .interface_index = 3}));
  EXPECT_EQ(t.Find(A("10.1.2.3"), kAny)->interface_index, 3u);
  EXPECT_EQ(t.Find(A("10.2.2.3"), kAny)->interface_index, 1u);
  EXPECT_EQ(t.Find(A("8.8.8.8"), kAny)->gateway, A("10.0.0.2"));
  EXPECT_EQ(t.Find(A("8.8.8.8"), [](const RouteEntry& e) { return e.interface_index == 1; })->gateway, A("10.0.0.1"));
  EXPECT_FALSE(t.Find(A("2001:db8::1"), kAny));
}

TEST(RoutingTable, RejectsNonsenseAndDuplicates) {
  RoutingTable t;
  EXPECT_EQ(t.Add({.destination = P("10.0.0.0", 33), .interface_index = 1}).error().value(), EINVAL);
  EXPECT_EQ(t.Add({.destination = P("10.0.0.1", 8), .interface_index = 1}).error().value(), EINVAL);
  EXPECT_EQ(t.Add({.destination = P("10.0.0.0", 8)}).error().value(), EINVAL);
  EXPECT_EQ(t.Add({.destination = P("10.0.0.0", 8), .gateway = A("fe80::1"), .interface_index = 1}).error().value(),
            EINVAL);
  EXPECT_EQ(t.Add({.destination = {}, .interface_index = 1}).error().value(), EINVAL);
  EXPECT_TRUE(t.Add({.destination = P("10.0.0.0", 8), .type = RouteType::kUnreachable}));
  EXPECT_TRUE(t.Add({.destination = P("10.0.0.0", 8), .interface_index = 1}));
  EXPECT_EQ(t.Add({.destination = P("10.0.0.0", 8), .interface_index = 1}).error().value(), EEXIST);
  EXPECT_TRUE(t.Add({.destination = P("10.0.0.0", 8), .interface_index = 1, .metric = 5}));
}

TEST(RoutingTable, RemoveAndGeneration) {
  RoutingTable t;
  int changes = 0;
  t.SetChangeHook([&](RoutingTable::Change, const RouteEntry&) { changes++; });
  uint32_t g = t.generation();
  ASSERT_TRUE(t.Add({.destination = P("10.0.0.0", 8), .interface_index = 1}));
  ASSERT_TRUE(t.Add({.destination = P("11.0.0.0", 8), .interface_index = 1}));
  ASSERT_TRUE(t.Add({.destination = P("12.0.0.0", 8), .interface_index = 2}));
  EXPECT_NE(t.generation(), g);
  EXPECT_EQ(t.Remove({.destination = P("10.0.0.0", 8), .interface_index = 2}).error().value(), ESRCH);
  EXPECT_TRUE(t.Remove({.destination = P("10.0.0.0", 8)}));
  t.RemoveInterface(1);
  EXPECT_EQ(t.Entries().size(), 1u);
  EXPECT_EQ(changes, 5);
}

TEST(RoutingTable, AReplacementIsOneChange) {
  RoutingTable t;
  std::vector<RoutingTable::Change> changes;
  t.SetChangeHook([&](RoutingTable::Change c, const RouteEntry&) { changes.push_back(c); });
  ASSERT_TRUE(t.Replace({.destination = P("10.0.0.0", 8), .gateway = A("192.0.2.1"), .interface_index = 1}));
  ASSERT_TRUE(t.Replace({.destination = P("10.0.0.0", 8), .gateway = A("192.0.2.2"), .interface_index = 2}));
  // Of another metric: another route.
  ASSERT_TRUE(t.Replace({.destination = P("10.0.0.0", 8), .interface_index = 1, .metric = 5}));
  EXPECT_EQ(t.Replace({.destination = P("10.0.0.0", 8)}).error().value(), EINVAL);
  using Change = RoutingTable::Change;
  EXPECT_EQ(changes, (std::vector{Change::kAdded, Change::kReplaced, Change::kAdded}));
  ASSERT_EQ(t.Entries().size(), 2u);
  EXPECT_EQ(t.Entries()[0].gateway, A("192.0.2.2"));
}

TEST(RoutingTable, IsBounded) {
  RoutingTable t;
  for (uint32_t i = 0; i < RoutingTable::kMaxRoutes; i++) {
    ASSERT_TRUE(t.Add({.destination = {Address::Ipv4(0x0a000000 + i), 32}, .interface_index = 1}));
  }
  EXPECT_EQ(t.Add({.destination = P("1.2.3.4", 32), .interface_index = 1}).error().value(), ENOSPC);
}

// Against the definition: no matching route is longer, and none as long has a smaller metric.
TEST(RoutingTable, AgreesWithTheDefinition) {
  std::mt19937 random(5);
  for (int round = 0; round < 50; round++) {
    RoutingTable t;
    for (int i = 0; i < 60; i++) {
      Prefix p{Address::Ipv4(random() & 0xff0000ff), static_cast<uint8_t>(random() % 33)};
      p.address = p.Network();
      (void)t.Add({.destination = p,
                   .interface_index = static_cast<uint32_t>(1 + random() % 3),
                   .metric = static_cast<uint32_t>(random() % 4)});
    }
    for (int i = 0; i < 100; i++) {
      Address to = Address::Ipv4(random() & 0xff0000ff);
      auto found = t.Find(to, kAny);
      for (const RouteEntry& e : t.Entries()) {
        if (!e.destination.Contains(to)) continue;
        ASSERT_TRUE(found);
        ASSERT_GE(found->destination.length, e.destination.length);
        if (found->destination.length == e.destination.length) {
          ASSERT_LE(found->metric, e.metric);
        }
      }
    }
  }
}

// The examples of RFC 6724 section 10.1, and rules of section 5.
TEST(SelectSource, Table) {
  struct {
    const char* name;
    const char* remote;
    std::vector<SourceCandidate> candidates;
    const char* chosen;
  } cases[] = {
      {"10.1: prefer appropriate scope",
       "2001:db8:1::1",
       {{P("2001:db8:3::1", 64)}, {P("fe80::1", 64)}},
       "2001:db8:3::1"},
      {"10.1: prefer appropriate scope", "ff05::1", {{P("2001:db8:3::1", 64)}, {P("fe80::1", 64)}}, "2001:db8:3::1"},
      {"10.1: prefer the same address",
       "2001:db8:1::1",
       {{P("2001:db8:1::1", 64), true}, {P("2001:db8:2::1", 64)}},
       "2001:db8:1::1"},
      {"10.1: prefer appropriate scope", "fe80::1", {{P("fe80::2", 64), true}, {P("2001:db8:1::1", 64)}}, "fe80::2"},
      {"10.1: longest matching prefix",
       "2001:db8:1::1",
       {{P("2001:db8:1::2", 64)}, {P("2001:db8:3::2", 64)}},
       "2001:db8:1::2"},
      {"10.1: matching label",
       "2002:c633:6401::1",
       {{P("2002:c633:6401::d5e3:7953:13eb:22e8", 64)}, {P("2001:db8:1::2", 64)}},
       "2002:c633:6401::d5e3:7953:13eb:22e8"},
      {"avoid deprecated",
       "2001:db8:1::9",
       {{P("2001:db8:1::2", 64), true}, {P("2001:db8:9::2", 64)}},
       "2001:db8:9::2"},
      {"outgoing interface",
       "10.0.0.9",
       {{P("10.0.0.1", 24), false, false}, {P("192.168.0.1", 24), false, true}},
       "192.168.0.1"},
      {"longest match in IPv4", "10.0.0.9", {{P("192.168.0.1", 24)}, {P("10.0.0.1", 24)}}, "10.0.0.1"},
      {"only the own family", "10.0.0.9", {{P("2001:db8::1", 64)}, {P("10.0.0.1", 24)}}, "10.0.0.1"},
  };
  for (auto& c : cases) {
    for (int order = 0; order < 2; order++) {
      int i = SelectSource(A(c.remote), c.candidates);
      ASSERT_GE(i, 0) << c.name;
      EXPECT_EQ(c.candidates[static_cast<size_t>(i)].prefix.address, A(c.chosen)) << c.name << " order " << order;
      std::reverse(c.candidates.begin(), c.candidates.end());
    }
  }
  EXPECT_EQ(SelectSource(A("10.0.0.1"), {}), -1);
}

TEST(PathMtu, LowersExpiresAndKeepsAFloor) {
  PathMtuCache c;
  Time now = kSecond;
  EXPECT_FALSE(c.Find(A("10.0.0.1"), now));
  uint32_t g = c.generation();
  EXPECT_EQ(c.Lower(A("10.0.0.1"), 1400, 1500, now), 1400u);
  EXPECT_NE(c.generation(), g);
  EXPECT_EQ(c.Lower(A("10.0.0.1"), 1450, 1500, now), 1400u);  // never up
  EXPECT_EQ(c.Lower(A("10.0.0.1"), 68, 1500, now), PathMtuCache::kMinIpv4);
  EXPECT_EQ(c.Lower(A("2001:db8::1"), 40, 1500, now), PathMtuCache::kMinIpv6);
  EXPECT_EQ(c.Lower(A("10.0.0.2"), 2000, 1500, now), 1500u);  // tells us nothing
  EXPECT_FALSE(c.Find(A("10.0.0.2"), now));
  EXPECT_TRUE(c.Find(A("10.0.0.1"), now + PathMtuCache::kLifetime - 1));
  EXPECT_FALSE(c.Find(A("10.0.0.1"), now + PathMtuCache::kLifetime));
}

TEST(PathMtu, IsBounded) {
  PathMtuCache c;
  for (uint32_t i = 0; i < PathMtuCache::kMaxEntries + 100; i++) c.Lower(Address::Ipv4(i + 1), 1000, 1500, i);
  size_t known = 0;
  for (uint32_t i = 0; i < PathMtuCache::kMaxEntries + 100; i++) known += c.Find(Address::Ipv4(i + 1), 0).has_value();
  EXPECT_EQ(known, PathMtuCache::kMaxEntries);
  EXPECT_TRUE(c.Find(Address::Ipv4(PathMtuCache::kMaxEntries + 100), 0));
}

}  // namespace
}  // namespace redoubt::netstack
