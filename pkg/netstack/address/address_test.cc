#include "pkg/netstack/address/address.h"

#include <gtest/gtest.h>

namespace redoubt::netstack {
namespace {

Address A(std::string_view text) { return *Address::Parse(text); }

TEST(Address, ParsesAndPrints) {
  for (const char* text :
       {"0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1", "2001:db8::1:0:0:1", "::ffff:1.2.3.4"}) {
    ASSERT_TRUE(Address::Parse(text)) << text;
    EXPECT_EQ(A(text).ToString(), text);
  }
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "256.1.1.1", ":::", "g::", "1.2.3.4/8", "fe80::1%eth0"}) {
    EXPECT_FALSE(Address::Parse(text)) << text;
  }
}

TEST(Address, FromBytesTakesFourOrSixteen) {
  std::array<std::byte, 17> bytes{};
  for (size_t n = 0; n <= 17; n++) {
    Address a = Address::FromBytes(std::span(bytes).first(n));
    EXPECT_EQ(a.empty(), n != 4 && n != 16);
    EXPECT_EQ(a.size(), a.empty() ? 0 : n);
  }
}

struct ScopeCase {
  const char* text;
  Scope scope;
  bool multicast, loopback, link_local;
};

TEST(Address, ScopesOfRfc6724Section3) {
  const ScopeCase kCases[] = {
      {"127.1.2.3", Scope::kLinkLocal, false, true, false}, {"169.254.9.9", Scope::kLinkLocal, false, false, true},
      {"10.0.0.1", Scope::kGlobal, false, false, false},    {"192.168.0.1", Scope::kGlobal, false, false, false},
      {"224.0.0.1", Scope::kLinkLocal, true, false, false}, {"239.1.2.3", Scope::kGlobal, true, false, false},
      {"::1", Scope::kLinkLocal, false, true, false},       {"fe80::1", Scope::kLinkLocal, false, false, true},
      {"fec0::1", Scope::kSiteLocal, false, false, false},  {"2001:db8::1", Scope::kGlobal, false, false, false},
      {"fd00::1", Scope::kGlobal, false, false, false},     {"ff01::1", Scope::kInterfaceLocal, true, false, false},
      {"ff02::1", Scope::kLinkLocal, true, false, false},   {"ff05::2", Scope::kSiteLocal, true, false, false},
      {"ff0e::101", Scope::kGlobal, true, false, false},
  };
  for (const ScopeCase& c : kCases) {
    EXPECT_EQ(A(c.text).scope(), c.scope) << c.text;
    EXPECT_EQ(A(c.text).IsMulticast(), c.multicast) << c.text;
    EXPECT_EQ(A(c.text).IsLoopback(), c.loopback) << c.text;
    EXPECT_EQ(A(c.text).IsLinkLocal(), c.link_local) << c.text;
  }
}

TEST(Prefix, ContainsNetworkAndBroadcast) {
  Prefix p{A("192.168.130.7"), 22};
  EXPECT_EQ(p.Network(), A("192.168.128.0"));
  EXPECT_EQ(p.Broadcast(), A("192.168.131.255"));
  EXPECT_TRUE(p.Contains(A("192.168.131.255")));
  EXPECT_FALSE(p.Contains(A("192.168.132.0")));
  EXPECT_FALSE(p.Contains(A("::1")));
  EXPECT_TRUE((Prefix{A("0.0.0.0"), 0}.Contains(A("8.8.8.8"))));
  EXPECT_FALSE((Prefix{A("0.0.0.0"), 0}.Contains(A("::"))));
  EXPECT_TRUE((Prefix{A("10.0.0.0"), 31}.Broadcast().empty()));
  EXPECT_TRUE((Prefix{A("10.0.0.0"), 32}.Broadcast().empty()));
  EXPECT_EQ((Prefix{A("10.1.2.3"), 0}.Broadcast()), A("255.255.255.255"));
  EXPECT_EQ((Prefix{A("2001:db8:1:2:3::1"), 64}.Network()), A("2001:db8:1:2::"));
  EXPECT_EQ((Prefix{A("2001:db8::1"), 128}.Network()), A("2001:db8::1"));
}

TEST(Address, CommonPrefixLength) {
  EXPECT_EQ(CommonPrefixLength(A("1.2.3.4"), A("1.2.3.4")), 32);
  EXPECT_EQ(CommonPrefixLength(A("128.0.0.0"), A("0.0.0.0")), 0);
  EXPECT_EQ(CommonPrefixLength(A("2001:db8::1"), A("2001:db8::2")), 126);
}

TEST(Address, MappedAndDerived) {
  EXPECT_EQ(A("1.2.3.4").ToV4Mapped(), A("::ffff:1.2.3.4"));
  EXPECT_EQ(A("::ffff:1.2.3.4").FromV4Mapped(), A("1.2.3.4"));
  EXPECT_EQ(A("::1").FromV4Mapped(), A("::1"));
  EXPECT_EQ(SolicitedNodeAddress(A("4037::01:800:200e:8c6c")), A("ff02::1:ff0e:8c6c"));  // RFC 4291 section 2.7.1
  EXPECT_EQ(MulticastLinkAddress(A("224.129.2.3")), (LinkAddress{{1, 0, 0x5e, 1, 2, 3}}));
  EXPECT_EQ(MulticastLinkAddress(A("ff02::1:ff0e:8c6c")), (LinkAddress{{0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c}}));
  // RFC 4291 appendix A: 34-56-78-9A-BC-DE becomes 3656:78ff:fe9a:bcde.
  EXPECT_EQ(Eui64Address(A("fe80::"), LinkAddress{{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}}),
            A("fe80::3656:78ff:fe9a:bcde"));
}

TEST(LinkAddress, Kinds) {
  EXPECT_TRUE(kBroadcastLinkAddress.IsBroadcast() && kBroadcastLinkAddress.IsMulticast());
  EXPECT_FALSE((LinkAddress{{2, 0, 0, 0, 0, 1}}.IsMulticast()));
  EXPECT_EQ((LinkAddress{{2, 0, 0xab, 0, 0, 1}}.ToString()), "02:00:ab:00:00:01");
}

}  // namespace
}  // namespace redoubt::netstack
