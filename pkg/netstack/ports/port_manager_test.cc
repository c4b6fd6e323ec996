#include "pkg/netstack/ports/port_manager.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <set>

namespace redoubt::netstack {
namespace {

Address A(std::string_view t) { return *Address::Parse(t); }

struct PortManagerTest : testing::Test {
  SeededRandom random{9};
  PortManager ports{random};
  PortRequest Request(const char* address, uint16_t port = 80, uint8_t protocol = IPPROTO_TCP) {
    return {.protocol = protocol, .address = A(address), .port = port};
  }
  bool Ok(const PortRequest& r) { return ports.Reserve(r).has_value(); }
};

TEST_F(PortManagerTest, OverlapTable) {
  struct {
    const char *a, *b;
    bool v6_only_a, conflict;
  } cases[] = {
      {"10.0.0.1", "10.0.0.1", false, true},
      {"10.0.0.1", "10.0.0.2", false, false},
      {"0.0.0.0", "10.0.0.1", false, true},
      {"::", "10.0.0.1", false, true},
      {"::", "10.0.0.1", true, false},
      {"::", "0.0.0.0", false, true},
      {"::", "0.0.0.0", true, false},
      {"::", "::1", true, true},
      {"0.0.0.0", "::1", false, false},
      {"::ffff:10.0.0.1", "10.0.0.1", false, true},
      {"::", "::", true, true},
  };
  for (auto& c : cases) {
    PortRequest a = Request(c.a);
    a.v6_only = c.v6_only_a;
    auto claim = ports.Reserve(a);
    ASSERT_TRUE(claim) << c.a;
    EXPECT_EQ(!Ok(Request(c.b)), c.conflict) << c.a << " " << c.b;
    claim->Release();
    auto other = ports.Reserve(Request(c.b));
    ASSERT_TRUE(other);
    EXPECT_EQ(!Ok(a), c.conflict) << c.b << " " << c.a;
  }
}

TEST_F(PortManagerTest, ReleaseOnDestruction) {
  {
    auto claim = ports.Reserve(Request("0.0.0.0"));
    ASSERT_TRUE(claim);
    PortManager::Claim moved = std::move(*claim);
    EXPECT_FALSE(*claim);
    EXPECT_EQ(moved.port(), 80);
    EXPECT_EQ(ports.Reserve(Request("0.0.0.0")).error().value(), EADDRINUSE);
    EXPECT_TRUE(Ok(Request("0.0.0.0", 80, IPPROTO_UDP)));
    EXPECT_TRUE(Ok(Request("0.0.0.0", 81)));
  }
  EXPECT_TRUE(Ok(Request("0.0.0.0")));
}

TEST_F(PortManagerTest, DevicesKeepApart) {
  PortRequest a = Request("0.0.0.0"), b = a, c = a;
  a.interface_index = 1;
  b.interface_index = 2;
  auto claim = ports.Reserve(a);
  EXPECT_TRUE(Ok(b));
  EXPECT_FALSE(Ok(a));
  EXPECT_FALSE(Ok(c));
}

TEST_F(PortManagerTest, ReuseAddressUntilSomebodyListens) {
  PortRequest r = Request("0.0.0.0");
  PortRequest reuse = r;
  reuse.reuse_address = true;
  auto first = ports.Reserve(reuse);
  ASSERT_TRUE(first);
  EXPECT_FALSE(Ok(r));  // both must ask for it
  auto second = ports.Reserve(reuse);
  ASSERT_TRUE(second);
  ASSERT_TRUE(ports.SetListening(*first, true));
  EXPECT_FALSE(Ok(reuse));
  EXPECT_EQ(ports.SetListening(*second, true).error().value(), EADDRINUSE);
  ASSERT_TRUE(ports.SetListening(*first, false));
  EXPECT_TRUE(ports.SetListening(*second, true));
}

TEST_F(PortManagerTest, ReusePortAmongOneOwner) {
  PortRequest r = Request("0.0.0.0");
  r.reuse_port = true;
  r.owner = 1000;
  auto first = ports.Reserve(r);
  auto second = ports.Reserve(r);
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(ports.SetListening(*first, true));
  EXPECT_TRUE(ports.SetListening(*second, true));
  PortRequest stranger = r;
  stranger.owner = 1001;
  EXPECT_FALSE(Ok(stranger));
}

TEST_F(PortManagerTest, EphemeralPortsAreDistinctScatteredAndRunOut) {
  std::set<uint16_t> seen;
  std::vector<PortManager::Claim> claims;
  size_t neighbours = 0;
  uint16_t last = 0;
  for (int i = 0; i < 1000; i++) {
    auto claim = ports.Reserve(Request("0.0.0.0", 0));
    ASSERT_TRUE(claim);
    EXPECT_GE(claim->port(), PortManager::kFirstEphemeral);
    EXPECT_LE(claim->port(), PortManager::kLastEphemeral);
    EXPECT_TRUE(seen.insert(claim->port()).second);
    neighbours += claim->port() == last + 1;
    last = claim->port();
    claims.push_back(std::move(*claim));
  }
  EXPECT_LT(neighbours, 20u);
  // Take all others.
  for (uint32_t p = PortManager::kFirstEphemeral; p <= PortManager::kLastEphemeral; p++) {
    if (auto claim = ports.Reserve(Request("0.0.0.0", static_cast<uint16_t>(p)))) claims.push_back(std::move(*claim));
  }
  EXPECT_EQ(ports.Reserve(Request("0.0.0.0", 0)).error().value(), EADDRINUSE);
  uint16_t freed = claims.back().port();
  claims.pop_back();
  EXPECT_EQ(ports.Reserve(Request("10.0.0.1", 0))->port(), freed);
}

TEST_F(PortManagerTest, PickEphemeralTriesEveryPortOnce) {
  size_t tried = 0;
  EXPECT_EQ(ports.PickEphemeral(0,
                                [&](uint16_t) {
                                  tried++;
                                  return false;
                                }),
            0);
  EXPECT_EQ(tried, 60999u - 32768u + 1u);
  EXPECT_EQ(ports.PickEphemeral(0, [](uint16_t p) { return p == 40000; }), 40000);
}

TEST_F(PortManagerTest, AConnectionsPortIsTheLastToBeUsedAgain) {
  constexpr uint64_t kDestination = ~uint64_t{0} - 5;
  std::set<uint16_t> seen;
  for (uint32_t i = 0; i < 60999u - 32768u; i++) {
    ASSERT_TRUE(seen.insert(ports.PickEphemeral(kDestination, [](uint16_t) { return true; })).second) << i;
  }
}

}  // namespace
}  // namespace redoubt::netstack
