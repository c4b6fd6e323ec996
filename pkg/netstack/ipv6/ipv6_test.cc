#include "pkg/netstack/ipv6/ipv6.h"

#include <gtest/gtest.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>

#include <random>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/testing/network.h"
#include "test/fuzz/rounds.h"

namespace redoubt::netstack {
namespace {

using header::Ethernet;
using header::Icmp;
using header::Ipv6;
using header::NdpNeighbour;
using testing::A;
using testing::Contents;
using testing::Host;
using testing::Ipv6Packet;
using testing::Mac;
using testing::Network;
using testing::Text;
using Vec = std::vector<std::byte>;

Vec V(std::initializer_list<int> bytes) {
  Vec r;
  for (int b : bytes) r.push_back(static_cast<std::byte>(b));
  return r;
}
Vec operator+(Vec a, const Vec& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const Address kUs = A("2001:db8::1");
const Address kPeer = A("2001:db8::9");
const Address kRouter = A("fe80::aa");
const LinkAddress kPeerMac = Mac(9);

uint16_t IcmpSum(const Address& from, const Address& to, const Vec& m) {
  return Sum(m, PseudoHeaderSum(from.bytes(), to.bytes(), IPPROTO_ICMPV6, static_cast<uint32_t>(m.size())));
}

struct Station : ::testing::Test {
  explicit Station(uint8_t probes = 0, bool autoconfigure = false) : host(net.AddHost(1500, probes, autoconfigure)) {
    net.observer = [this](const Host&, const Packet& frame) { frames.push_back(Contents(frame.data)); };
  }
  void Inject(Buffer packet, LinkAddress to = Mac(1), LinkAddress from = kPeerMac) {
    Ethernet{.destination = to, .source = from, .ethertype = header::kEtherTypeIpv6}.Write({packet.Prepend(14), 14});
    host.channel->Inject(NewPacket(std::move(packet)));
    net.Run(kMillisecond);
  }
  static Vec Sealed(Vec m, const Address& from, const Address& to) {
    header::Store16(m, 2, 0);
    header::Store16(m, 2, static_cast<uint16_t>(~IcmpSum(from, to, m)));
    return m;
  }
  Buffer IcmpPacket(Vec m, Address from = kPeer, Address to = kUs, uint8_t hop_limit = 64) {
    return Ipv6Packet({.next_header = IPPROTO_ICMPV6, .hop_limit = hop_limit, .source = from, .destination = to},
                      Sealed(std::move(m), from, to));
  }
  static Vec Echo(size_t payload = 8) {
    Vec m(Icmp::kSize + payload, std::byte{0x5a});
    Icmp{.type = ICMP6_ECHO_REQUEST, .rest = 7}.Write(m);
    return m;
  }
  struct Seen {
    Ipv6 ip;
    uint8_t type = 0, code = 0;
    Vec message;
  };
  // The ICMPv6 messages sent, those of multicast membership left out unless asked for.
  std::vector<Seen> Messages(bool membership = false) {
    std::vector<Seen> r;
    for (const Vec& f : frames) {
      header::Bytes b = header::Bytes(f).subspan(14);
      std::optional<Ipv6> ip = Ipv6::Parse(b, b.size());
      if (!ip) continue;
      header::Ipv6Extensions e = header::Ipv6Extensions::Walk(b, ip->next_header, 6, 40);
      if (e.next_header != IPPROTO_ICMPV6) continue;
      Vec m(b.begin() + static_cast<long>(e.offset), b.end());
      EXPECT_EQ(IcmpSum(ip->source, ip->destination, m), 0xffff);
      uint8_t type = header::Load8(m, 0);
      bool is_membership = type == 143 || (type >= 130 && type <= 132);
      if (is_membership == membership) r.push_back({*ip, type, header::Load8(m, 1), m});
    }
    return r;
  }
  Network net{5};
  Host& host;
  std::vector<Vec> frames;
};

struct Ipv6Test : Station {
  Ipv6Test() {
    (void)host.eth0->neighbours(Family::kIpv6).AddPermanent(kPeer, kPeerMac);
    (void)host.eth0->neighbours(Family::kIpv6).AddPermanent(kRouter, kPeerMac);
    net.Run(20 * kSecond);
    frames.clear();
  }
};

TEST_F(Ipv6Test, EchoIsAnsweredAlsoBehindExtensionHeaders) {
  Inject(IcmpPacket(Echo()));
  ASSERT_EQ(Messages().size(), 1u);
  EXPECT_EQ(Messages()[0].type, ICMP6_ECHO_REPLY);
  EXPECT_EQ(Messages()[0].ip.source, kUs);
  frames.clear();
  Vec chain = V({60, 0, 1, 4, 0, 0, 0, 0}) + V({43, 0, 1, 4, 0, 0, 0, 0}) + V({58, 0, 0, 0, 0, 0, 0, 0}) +
              Sealed(Echo(), kPeer, kUs);
  Inject(Ipv6Packet({.next_header = 0, .hop_limit = 64, .source = kPeer, .destination = kUs}, chain));
  ASSERT_EQ(Messages().size(), 1u);
  EXPECT_EQ(Messages()[0].type, ICMP6_ECHO_REPLY);
  frames.clear();
  // All-nodes: answered from a unicast address.
  Inject(IcmpPacket(Echo(), kRouter, kAllNodesV6), MulticastLinkAddress(kAllNodesV6));
  ASSERT_EQ(Messages().size(), 1u);
  EXPECT_TRUE(Messages()[0].ip.source.IsLinkLocal());
}

TEST_F(Ipv6Test, ParameterProblemsPointAtTheTrouble) {
  struct {
    const char* name;
    int first;
    Vec payload;
    int code;  // -1: dropped in silence
    uint32_t pointer;
  } cases[] = {
      {"unknown next header", 200, Vec(8), ICMP6_PARAMPROB_NEXTHEADER, 6},
      {"unknown next header behind options", 60, V({200, 0, 1, 4, 0, 0, 0, 0}) + Vec(8), ICMP6_PARAMPROB_NEXTHEADER,
       40},
      {"option to answer", 60, V({58, 0, 0x9e, 4, 0, 0, 0, 0}), ICMP6_PARAMPROB_OPTION, 42},
      {"option to discard", 60, V({58, 0, 0x5e, 4, 0, 0, 0, 0}), -1, 0},
      {"routing with segments left", 43, V({58, 0, 0, 1, 0, 0, 0, 0}), ICMP6_PARAMPROB_HEADER, 42},
      {"hop by hop in the wrong place", 60, V({0, 0, 1, 4, 0, 0, 0, 0}) + V({58, 0, 1, 4, 0, 0, 0, 0}),
       ICMP6_PARAMPROB_NEXTHEADER, 40},
      {"fragment of a length that is no multiple of 8", 44, V({58, 0, 0, 1, 0, 0, 0, 1}) + Vec(9),
       ICMP6_PARAMPROB_HEADER, 4},
      {"cut off", 60, V({58, 9, 1, 4}), -1, 0},
  };
  for (auto& c : cases) {
    frames.clear();
    Inject(
        Ipv6Packet({.next_header = static_cast<uint8_t>(c.first), .hop_limit = 64, .source = kPeer, .destination = kUs},
                   c.payload));
    auto m = Messages();
    if (c.code < 0) {
      EXPECT_TRUE(m.empty()) << c.name;
      continue;
    }
    ASSERT_EQ(m.size(), 1u) << c.name;
    EXPECT_EQ(m[0].type, ICMP6_PARAM_PROB) << c.name;
    EXPECT_EQ(m[0].code, c.code) << c.name;
    EXPECT_EQ(header::Load32(m[0].message, 4), c.pointer) << c.name;
  }
}

TEST_F(Ipv6Test, MartiansAreCountedAndDropped) {
  IpStats& stats = host.stack.ip_stats(Family::kIpv6);
  struct {
    const char *source, *destination;
  } cases[] = {{"ff02::1", "2001:db8::1"}, {"::1", "2001:db8::1"},          {"2001:db8::9", "::1"},
               {"2001:db8::9", "::"},      {"2001:db8::1", "2001:db8::1"},  {"::ffff:1.2.3.4", "2001:db8::1"},
               {"2001:db8::9", "ff01::1"}, {"2001:db8::9", "2001:db8::77"}, {"2001:db8::9", "ff02::77"}};
  for (auto& c : cases) {
    uint64_t before = stats.in_address_errors;
    Inject(IcmpPacket(Echo(), A(c.source), A(c.destination)));
    EXPECT_EQ(stats.in_address_errors, before + 1) << c.source << " " << c.destination;
  }
  EXPECT_TRUE(Messages().empty());
  Vec bad = Sealed(Echo(), kPeer, kUs);
  bad[9] ^= std::byte{1};
  Inject(Ipv6Packet({.next_header = IPPROTO_ICMPV6, .hop_limit = 64, .source = kPeer, .destination = kUs}, bad));
  EXPECT_EQ(host.inet.ipv6->icmp_stats().in_checksum_errors, 1u);
  EXPECT_TRUE(Messages().empty());
}

TEST_F(Ipv6Test, FragmentsComeTogetherAndTimeOut) {
  Vec echo = Sealed(Echo(2400), kPeer, kUs);
  auto part = [&](size_t at, size_t n, bool more, uint32_t id) {
    Vec h(8);
    header::Ipv6Fragment{.next_header = IPPROTO_ICMPV6, .offset = static_cast<uint16_t>(at), .more = more, .id = id}
        .Write(h);
    return Ipv6Packet({.next_header = 44, .hop_limit = 64, .source = kPeer, .destination = kUs},
                      h + Vec(echo.begin() + static_cast<long>(at), echo.begin() + static_cast<long>(at + n)));
  };
  Inject(part(1200, echo.size() - 1200, false, 1));
  Inject(part(0, 1200, true, 1));
  EXPECT_EQ(frames.size(), 2u);  // the answer, in fragments
  EXPECT_EQ(host.stack.ip_stats(Family::kIpv6).reassembly_ok, 1u);
  frames.clear();
  // An atomic fragment (RFC 6946).
  echo = Sealed(Echo(), kPeer, kUs);
  Inject(part(0, echo.size(), false, 2));
  ASSERT_EQ(Messages().size(), 1u);
  frames.clear();
  Inject(part(0, 8, true, 3));
  net.Run(Ipv6Protocol::kReassemblyTimeout);
  ASSERT_EQ(Messages().size(), 1u);
  EXPECT_EQ(Messages()[0].type, ICMP6_TIME_EXCEEDED);
  EXPECT_EQ(Messages()[0].code, ICMP6_TIME_EXCEED_REASSEMBLY);
}

TEST_F(Ipv6Test, PacketTooBigLowersThePathMtu) {
  auto e = UdpEndpoint::Create(*host.inet.udp, Family::kIpv6);
  ASSERT_TRUE(e->Connect({kPeer, 7}));
  ASSERT_TRUE(e->Send(Text(std::string(1400, 'x'))));
  net.Run(kMillisecond);
  Vec quoted(frames.back().begin() + 14, frames.back().begin() + 14 + 48);
  Route route = *host.stack.FindRoute({.remote = kPeer});
  auto too_big = [&](uint32_t mtu) {
    Vec m(8);
    Icmp{.type = ICMP6_PACKET_TOO_BIG, .rest = mtu}.Write(m);
    Inject(IcmpPacket(m + quoted));
  };
  too_big(1600);
  EXPECT_EQ(route.mtu(), 1500u);
  too_big(1300);
  EXPECT_EQ(route.mtu(), 1300u);
  too_big(100);
  EXPECT_EQ(route.mtu(), 1280u);
  EXPECT_EQ(e->TakeError(), 0);  // fragments from now on
  frames.clear();
  ASSERT_TRUE(e->Send(Text(std::string(1400, 'x'))));
  net.Run(kMillisecond);
  EXPECT_EQ(frames.size(), 2u);
  e->Close();
}

TEST_F(Ipv6Test, NeighbourMessagesThatCameThroughARouterAreRefused) {
  NdpNeighbour ns{.type = ND_NEIGHBOR_SOLICIT, .target = kUs};
  Vec m(40);
  m.resize(ns.Write(m, kPeerMac));
  Inject(IcmpPacket(m, kPeer, kUs, 254));
  EXPECT_TRUE(Messages().empty());
  EXPECT_EQ(host.inet.ipv6->icmp_stats().in_malformed_neighbour_messages, 1u);
  Inject(IcmpPacket(m, kPeer, kUs, 255));
  ASSERT_EQ(Messages().size(), 1u);
  EXPECT_EQ(Messages()[0].type, ND_NEIGHBOR_ADVERT);
  EXPECT_EQ(Messages()[0].ip.hop_limit, 255);
  auto na = NdpNeighbour::Parse(Messages()[0].message);
  ASSERT_TRUE(na);
  EXPECT_TRUE(na->solicited && na->override && !na->router);
  EXPECT_EQ(na->options.target_link, Mac(1));
  frames.clear();
  // Somebody checks whether our address is free: all are told that it is not.
  m.resize(40);
  m.resize(ns.Write(m, std::nullopt));
  Inject(IcmpPacket(m, A("::"), SolicitedNodeAddress(kUs), 255), MulticastLinkAddress(SolicitedNodeAddress(kUs)));
  ASSERT_EQ(Messages().size(), 1u);
  EXPECT_EQ(Messages()[0].ip.destination, kAllNodesV6);
}

TEST_F(Ipv6Test, MldReportsAndAnswers) {
  Address group = A("ff05::77");
  ASSERT_TRUE(host.eth0->JoinGroup(group));
  net.Run(2 * kSecond);
  auto m = Messages(true);
  ASSERT_EQ(m.size(), 2u);
  EXPECT_EQ(m[0].type, 143);
  EXPECT_EQ(m[0].ip.hop_limit, 1);
  EXPECT_TRUE(m[0].ip.source.IsLinkLocal());
  EXPECT_EQ(header::LoadIpv6(m[0].message, 12), group);
  frames.clear();
  // An MLDv1 query with its router alert, and the same without, which is forged.
  Vec query(24);
  header::Mld{.type = MLD_LISTENER_QUERY, .max_response = 1000, .group = A("::")}.Write(query);
  query = Sealed(query, kRouter, kAllNodesV6);
  Inject(
      Ipv6Packet({.next_header = IPPROTO_ICMPV6, .hop_limit = 1, .source = kRouter, .destination = kAllNodesV6}, query),
      MulticastLinkAddress(kAllNodesV6));
  net.Run(2 * kSecond);
  EXPECT_TRUE(Messages(true).empty());
  Inject(Ipv6Packet({.next_header = 0, .hop_limit = 1, .source = kRouter, .destination = kAllNodesV6},
                    V({58, 0, 5, 2, 0, 0, 1, 0}) + query),
         MulticastLinkAddress(kAllNodesV6));
  net.Run(2 * kSecond);
  bool reported = false;
  for (auto& s : Messages(true)) reported = reported || (s.type == MLD_LISTENER_REPORT && s.ip.destination == group);
  EXPECT_TRUE(reported);
  frames.clear();
  ASSERT_TRUE(host.eth0->LeaveGroup(group));
  net.Run(kMillisecond);
  ASSERT_EQ(Messages(true).size(), 1u);
  EXPECT_EQ(Messages(true)[0].type, MLD_LISTENER_REDUCTION);
}

TEST_F(Ipv6Test, ForwardsIfToldTo) {
  auto link = std::make_unique<Channel>(Channel::Options{.mtu = 1280, .address = Mac(100)});
  Channel* out = link.get();
  RefPtr<Interface> eth1 = *host.stack.AddInterface(
      {.name = "eth1", .link = std::move(link), .autoconfigure = false, .duplicate_probes = 0});
  ASSERT_TRUE(eth1->AddAddress({.prefix = {A("2001:db8:1::1"), 64}}));
  eth1->SetUp(true);
  ASSERT_TRUE(eth1->neighbours(Family::kIpv6).AddPermanent(A("2001:db8:1::5"), Mac(5)));
  while (out->Read()) {
  }
  host.stack.SetForwarding(Family::kIpv6, true);
  Inject(IcmpPacket(Echo(), kPeer, A("2001:db8:1::5")));
  PacketPtr p = out->Read();
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(header::Load8(Contents(p->data), 14 + 7), 63);
  struct {
    Buffer packet;
    int type, code;
  } cases[] = {
      {IcmpPacket(Echo(), kPeer, A("2001:db8:1::5"), 1), ICMP6_TIME_EXCEEDED, 0},
      {IcmpPacket(Echo(1400), kPeer, A("2001:db8:1::5")), ICMP6_PACKET_TOO_BIG, 0},
      {IcmpPacket(Echo(), kPeer, A("2600::1")), ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE},
  };
  for (auto& c : cases) {
    frames.clear();
    Inject(std::move(c.packet));
    auto m = Messages();
    ASSERT_EQ(m.size(), 1u);
    EXPECT_EQ(m[0].type, c.type);
    EXPECT_EQ(m[0].code, c.code);
  }
}

// A host that configures itself.
struct SlaacTest : Station {
  SlaacTest() : Station(1, true) {}
  Address link_local = Eui64Address(A("fe80::"), Mac(1));
  Address global = Eui64Address(A("2001:db8:5::"), Mac(1));
  Vec Advertisement(uint16_t router_lifetime, uint32_t valid, uint32_t preferred) {
    Vec m(16 + 32 + 8);
    header::Store8(m, 0, ND_ROUTER_ADVERT);
    header::Store16(m, 6, router_lifetime);
    header::Store8(m, 16, 3);
    header::Store8(m, 17, 4);
    header::Store8(m, 18, 64);
    header::Store8(m, 19, 0xc0);
    header::Store32(m, 20, valid);
    header::Store32(m, 24, preferred);
    header::StoreAddress(m, 32, A("2001:db8:5::"));
    header::Store8(m, 48, 1);
    header::Store8(m, 49, 1);
    header::StoreLink(m, 50, kPeerMac);
    return m;
  }
  void Advertise(uint16_t router_lifetime, uint32_t valid, uint32_t preferred, uint8_t hop_limit = 255,
                 Address from = kRouter) {
    Inject(IcmpPacket(Advertisement(router_lifetime, valid, preferred), from, kAllNodesV6, hop_limit),
           MulticastLinkAddress(kAllNodesV6));
  }
  bool HasRoute(const Prefix& p) {
    auto e = host.stack.routes().Entries();
    return std::ranges::any_of(e, [&](const RouteEntry& r) { return r.destination == p; });
  }
  const Prefix kDefault{Address::Any(Family::kIpv6), 0};
};

TEST_F(SlaacTest, LinkLocalAddressAfterDuplicateDetectionThenRouters) {
  EXPECT_EQ(host.eth0->FindAddress(link_local)->state, AddressState::kTentative);
  EXPECT_FALSE(host.stack.IsLocal(link_local));
  net.Run(2 * kSecond);
  EXPECT_EQ(host.eth0->FindAddress(link_local)->state, AddressState::kPreferred);
  EXPECT_TRUE(host.stack.IsLocal(link_local));
  net.Run(20 * kSecond);
  size_t probes = 0, solicitations = 0;
  for (auto& m : Messages()) {
    if (m.type == ND_NEIGHBOR_SOLICIT) {
      probes++;
      EXPECT_TRUE(m.ip.source.IsUnspecified());
      EXPECT_EQ(m.ip.destination, SolicitedNodeAddress(link_local));
    }
    if (m.type == ND_ROUTER_SOLICIT) solicitations++;
  }
  EXPECT_EQ(probes, 1u);
  EXPECT_EQ(solicitations, 3u);
}

TEST_F(SlaacTest, AddressAndRouteFromARouterAndTheirLives) {
  net.Run(2 * kSecond);
  Advertise(1800, 7300, 3600);
  EXPECT_TRUE(HasRoute(kDefault));
  EXPECT_TRUE(HasRoute({A("2001:db8:5::"), 64}));
  ASSERT_TRUE(host.eth0->FindAddress(global));
  net.Run(2 * kSecond);
  EXPECT_EQ(host.eth0->FindAddress(global)->state, AddressState::kPreferred);
  Result<Route> route = host.stack.FindRoute({.remote = A("2600::1")});
  ASSERT_TRUE(route);
  EXPECT_EQ(route->local(), global);
  EXPECT_EQ(route->next_hop(), kRouter);
  net.Run(1800 * kSecond);
  EXPECT_FALSE(HasRoute(kDefault));
  EXPECT_TRUE(route->IsStale());
  net.Run(1800 * kSecond);
  EXPECT_EQ(host.eth0->FindAddress(global)->state, AddressState::kDeprecated);
  net.Run(3700 * kSecond);
  EXPECT_FALSE(host.eth0->FindAddress(global));
  EXPECT_FALSE(host.stack.IsLocal(global));
}

TEST_F(SlaacTest, TheOnLinkRouteIsThePrefixesNotTheAddresss) {
  net.Run(2 * kSecond);
  Advertise(1800, 7300, 3600);
  ASSERT_TRUE(host.eth0->RemoveAddress(global));
  EXPECT_TRUE(HasRoute({A("2001:db8:5::"), 64}));
  host.eth0->SetUp(false);
  EXPECT_FALSE(HasRoute({A("2001:db8:5::"), 64}));
  EXPECT_FALSE(HasRoute(kDefault));
}

// RFC 4862 section 5.5.3 (e).
TEST_F(SlaacTest, NobodyCutsALifeBelowTwoHours) {
  net.Run(2 * kSecond);
  Advertise(1800, 100000, 50000);
  auto remaining = [&] { return host.eth0->FindAddress(global)->valid_until - net.clock.Now(); };
  Advertise(1800, 0, 0);
  EXPECT_NEAR(static_cast<double>(remaining()), 7200e9, 1e9);
  Advertise(1800, 10, 10);
  EXPECT_NEAR(static_cast<double>(remaining()), 7200e9, 1e9);
  Advertise(1800, 8000, 10);
  EXPECT_NEAR(static_cast<double>(remaining()), 8000e9, 1e9);
  Advertise(0, 8000, 10);
  EXPECT_FALSE(HasRoute(kDefault));
}

TEST_F(SlaacTest, AdvertisementsThatAreNotFromThisLinkAreRefused) {
  net.Run(2 * kSecond);
  Advertise(1800, 7300, 3600, 64);
  Advertise(1800, 7300, 3600, 255, A("2001:db8::66"));
  Advertise(1800, 10, 3600);  // preferred longer than valid
  EXPECT_FALSE(host.eth0->FindAddress(global));
  EXPECT_EQ(host.inet.ipv6->icmp_stats().in_malformed_neighbour_messages, 2u);
}

TEST_F(SlaacTest, RoutersAreBounded) {
  net.Run(2 * kSecond);
  for (int i = 0; i < 100; i++) {
    Advertise(1800, 0, 0, 255,
              Address::Ipv6({0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, static_cast<uint8_t>(i)}));
  }
  size_t n = 0;
  for (const RouteEntry& e : host.stack.routes().Entries()) n += e.destination == kDefault;
  EXPECT_EQ(n, Slaac::kMaxRouters);
}

TEST_F(SlaacTest, ADuplicateIsGivenUp) {
  // Another probes for the same address (its nonce is not ours) ...
  Vec m(40);
  m.resize(NdpNeighbour{.type = ND_NEIGHBOR_SOLICIT, .target = link_local}.Write(m, std::nullopt));
  Inject(IcmpPacket(m, A("::"), SolicitedNodeAddress(link_local), 255),
         MulticastLinkAddress(SolicitedNodeAddress(link_local)));
  EXPECT_EQ(host.eth0->FindAddress(link_local)->state, AddressState::kDuplicate);
  net.Run(10 * kSecond);
  EXPECT_FALSE(host.stack.IsLocal(link_local));
}

TEST_F(SlaacTest, AnAnswerToTheProbeIsADuplicateToo) {
  net.Run(10 * kMillisecond);
  Vec m(40);
  m.resize(NdpNeighbour{.type = ND_NEIGHBOR_ADVERT, .override = true, .target = link_local}.Write(m, kPeerMac));
  Inject(IcmpPacket(m, link_local, kAllNodesV6, 255), MulticastLinkAddress(kAllNodesV6));
  EXPECT_EQ(host.eth0->FindAddress(link_local)->state, AddressState::kDuplicate);
}

TEST_F(SlaacTest, OurOwnProbeComeBackIsNone) {
  net.Run(10 * kMillisecond);
  Vec probe;
  for (const Vec& f : frames) {
    if (f.size() > 54 && header::Load8(f, 54) == ND_NEIGHBOR_SOLICIT) probe = f;
  }
  ASSERT_FALSE(probe.empty());
  probe[6] = std::byte{2};
  probe[11] = std::byte{0x77};  // from a switch that mirrors
  host.channel->Inject(NewPacket(Buffer::CopyOf(probe)));
  net.Run(2 * kSecond);
  EXPECT_EQ(host.eth0->FindAddress(link_local)->state, AddressState::kPreferred);
}

TEST_F(Ipv6Test, SurvivesMutatedPackets) {
  Vec udp(16);
  header::Udp{.source_port = 7, .destination_port = 9, .length = 16}.Write(udp);
  Vec ns(40), ra(56);
  NdpNeighbour{.type = ND_NEIGHBOR_SOLICIT, .target = kUs}.Write(ns, kPeerMac);
  header::Store8(ra, 0, ND_ROUTER_ADVERT);
  header::Store8(ra, 16, 3);
  header::Store8(ra, 17, 4);
  header::Store8(ra, 48, 1);
  header::Store8(ra, 49, 1);
  Vec error(56);
  Icmp{.type = ICMP6_PACKET_TOO_BIG, .rest = 1300}.Write(error);
  Ipv6{.payload_length = 1400, .next_header = IPPROTO_UDP, .hop_limit = 9, .source = kUs, .destination = kPeer}.Write(
      std::span(error).subspan(8));
  std::vector<Buffer> seeds;
  seeds.push_back(IcmpPacket(Echo(40)));
  seeds.push_back(IcmpPacket(ns, kPeer, kUs, 255));
  seeds.push_back(IcmpPacket(ra, kRouter, kAllNodesV6, 255));
  seeds.push_back(IcmpPacket(error));
  seeds.push_back(Ipv6Packet({.next_header = 17, .hop_limit = 64, .source = kPeer, .destination = kUs}, udp));
  seeds.push_back(Ipv6Packet({.next_header = 0, .hop_limit = 1, .source = kRouter, .destination = kAllNodesV6},
                             V({58, 0, 5, 2, 0, 0, 1, 0}) + V({130, 0, 0, 0}) + Vec(24)));
  seeds.push_back(Ipv6Packet({.next_header = 60, .hop_limit = 64, .source = kPeer, .destination = kUs},
                             V({44, 0, 1, 4, 0, 0, 0, 0}) + V({58, 0, 0, 1, 0, 0, 0, 9}) + Vec(16)));
  host.stack.SetForwarding(Family::kIpv6, true);
  fuzz::Rounds(5000, [&](uint64_t seed) {
    std::mt19937_64 rng(seed);
    for (const Buffer& original : seeds) {
      Vec b = Contents(original);
      for (size_t k = rng() % 4; k > 0; k--) b[rng() % b.size()] = static_cast<std::byte>(rng());
      if (rng() % 4 == 0) b.resize(rng() % (b.size() + 1));
      if (rng() % 2 == 0 && b.size() > 48) {
        header::Ipv6Extensions e = header::Ipv6Extensions::Walk(b, header::Load8(b, 6), 6, 40);
        if (e.verdict == header::Ipv6Extensions::Verdict::kAccept && e.next_header == 58 && b.size() > e.offset + 4) {
          Vec m(b.begin() + static_cast<long>(e.offset), b.end());
          m = Sealed(m, header::LoadIpv6(b, 8), header::LoadIpv6(b, 24));
          std::copy(m.begin(), m.end(), b.begin() + static_cast<long>(e.offset));
        }
      }
      Buffer packet = Buffer::CopyOf(b, 14);
      LinkAddress to = rng() % 2 != 0 ? Mac(1) : MulticastLinkAddress(kAllNodesV6);
      Ethernet{.destination = to, .source = kPeerMac, .ethertype = header::kEtherTypeIpv6}.Write(
          {packet.Prepend(14), 14});
      host.channel->Inject(NewPacket(std::move(packet)));
    }
    net.Run(10 * kMillisecond);
    frames.clear();
  });
  net.Run(100 * kSecond);
  frames.clear();
  Inject(IcmpPacket(Echo()));
  bool answered = false;
  for (auto& m : Messages()) answered = answered || m.type == ICMP6_ECHO_REPLY;
  EXPECT_TRUE(answered);
}

}  // namespace
}  // namespace redoubt::netstack
