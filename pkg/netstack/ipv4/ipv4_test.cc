#include "pkg/netstack/ipv4/ipv4.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <random>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/testing/network.h"
#include "test/fuzz/rounds.h"

namespace redoubt::netstack {
namespace {

using header::Arp;
using header::Ethernet;
using header::Icmp;
using header::Ipv4;
using testing::A;
using testing::Contents;
using testing::Host;
using testing::Ipv4Packet;
using testing::Mac;
using testing::Network;
using testing::Text;
using Vec = std::vector<std::byte>;

const Address kUs = Address::Ipv4(10, 0, 0, 1);
const Address kPeer = Address::Ipv4(10, 0, 0, 9);
const LinkAddress kPeerMac = Mac(9);

// One host, and a station played by the test.
struct Ipv4Test : ::testing::Test {
  Network net{3};
  Host& host = net.AddHost();
  std::vector<Vec> frames;  // what the host has sent

  Ipv4Test() {
    net.observer = [this](const Host&, const Packet& frame) { frames.push_back(Contents(frame.data)); };
    (void)host.eth0->neighbours(Family::kIpv4).AddPermanent(kPeer, kPeerMac);
    net.Run(20 * kSecond);
    frames.clear();
  }
  void Inject(Buffer packet, uint16_t ethertype = header::kEtherTypeIpv4, LinkAddress to = Mac(1),
              LinkAddress from = kPeerMac) {
    Ethernet{.destination = to, .source = from, .ethertype = ethertype}.Write({packet.Prepend(14), 14});
    host.channel->Inject(NewPacket(std::move(packet)));
    net.Run(kMillisecond);
  }
  Vec Echo(size_t payload = 8) {
    Vec m(Icmp::kSize + payload, std::byte{0x5a});
    Icmp{.type = ICMP_ECHO, .rest = 0x00010002}.Write(m);
    header::Store16(m, 2, static_cast<uint16_t>(~Sum(m)));
    return m;
  }
  Ipv4 Header(uint8_t protocol = IPPROTO_ICMP) {
    return {.ttl = 64, .protocol = protocol, .source = kPeer, .destination = kUs};
  }
  // The IPv4 packet of the last frame, checked.
  struct Seen {
    Ipv4 ip;
    Vec payload;
  };
  Seen Last() {
    EXPECT_FALSE(frames.empty());
    if (frames.empty()) return {};
    header::Bytes b = header::Bytes(frames.back()).subspan(14);
    std::optional<Ipv4> ip = Ipv4::Parse(b, b.size());
    EXPECT_TRUE(ip);
    if (!ip) return {};
    EXPECT_EQ(Sum(b.first(ip->header_length)), 0xffff);
    Vec payload(b.begin() + ip->header_length, b.begin() + ip->total_length);
    if (ip->protocol == IPPROTO_ICMP && !ip->is_fragment()) {
      EXPECT_EQ(Sum(payload), 0xffff);
    }
    return {*ip, payload};
  }
  uint64_t Errors() {
    IpStats& s = host.stack.ip_stats(Family::kIpv4);
    return s.in_header_errors + s.in_address_errors + s.in_discards + s.in_unknown_protocols + s.in_transport_errors;
  }
};

TEST_F(Ipv4Test, EchoIsAnswered) {
  Inject(Ipv4Packet(Header(), Echo()));
  ASSERT_EQ(frames.size(), 1u);
  Seen s = Last();
  EXPECT_EQ(s.ip.destination, kPeer);
  EXPECT_EQ(s.ip.source, kUs);
  EXPECT_EQ(Icmp::Parse(s.payload)->type, ICMP_ECHOREPLY);
  EXPECT_EQ(Icmp::Parse(s.payload)->rest, 0x00010002u);
  EXPECT_EQ(s.payload[15], std::byte{0x5a});
}

TEST_F(Ipv4Test, PaddingOfTheLinkIsCutOff) {
  Buffer b = Ipv4Packet(Header(), Echo(1));
  b.Append(Vec(30));
  Inject(std::move(b));
  EXPECT_EQ(Last().payload.size(), 9u);
}

// What must be dropped in silence, and counted.
TEST_F(Ipv4Test, MalformedAndMartianPacketsAreCountedAndDropped) {
  struct {
    const char* name;
    std::function<Buffer()> make;
    LinkAddress to = Mac(1);
  } cases[] = {
      {"empty", [&] { return Buffer(); }},
      {"short", [&] { return Buffer::CopyOf(Vec(19)); }},
      {"version 5",
       [&] {
         Buffer b = Ipv4Packet(Header(), Echo());
         b.MakeWritable(1)[0] = std::byte{0x55};
         return b;
       }},
      {"checksum",
       [&] {
         Buffer b = Ipv4Packet(Header(), Echo());
         b.MakeWritable(20)[8] = std::byte{9};
         return b;
       }},
      {"cut off",
       [&] {
         Buffer b = Ipv4Packet(Header(), Echo());
         b.CapLength(30);
         return b;
       }},
      {"multicast source",
       [&] {
         Ipv4 h = Header();
         h.source = A("224.0.0.1");
         return Ipv4Packet(h, Echo());
       }},
      {"broadcast source",
       [&] {
         Ipv4 h = Header();
         h.source = A("10.0.0.255");
         return Ipv4Packet(h, Echo());
       }},
      {"loopback source",
       [&] {
         Ipv4 h = Header();
         h.source = A("127.0.0.1");
         return Ipv4Packet(h, Echo());
       }},
      {"loopback destination",
       [&] {
         Ipv4 h = Header();
         h.destination = A("127.0.0.1");
         return Ipv4Packet(h, Echo());
       }},
      {"our own source",
       [&] {
         Ipv4 h = Header();
         h.source = kUs;
         return Ipv4Packet(h, Echo());
       }},
      {"no source",
       [&] {
         Ipv4 h = Header();
         h.source = A("0.0.0.0");
         return Ipv4Packet(h, Echo());
       }},
      {"not for us",
       [&] {
         Ipv4 h = Header();
         h.destination = A("10.0.0.77");
         return Ipv4Packet(h, Echo());
       }},
      {"unicast in a link broadcast", [&] { return Ipv4Packet(Header(), Echo()); }, kBroadcastLinkAddress},
      {"group we are not in",
       [&] {
         Ipv4 h = Header();
         h.destination = A("239.9.9.9");
         return Ipv4Packet(h, Echo());
       }},
      {"source route",
       [&] { return Ipv4Packet(Header(), Echo(), Vec{std::byte{131}, std::byte{3}, std::byte{4}, std::byte{0}}); }},
  };
  for (auto& c : cases) {
    frames.clear();
    uint64_t before = Errors();
    Inject(c.make(), header::kEtherTypeIpv4, c.to);
    EXPECT_TRUE(frames.empty()) << c.name;
    EXPECT_EQ(Errors(), before + 1) << c.name;
  }
}

TEST_F(Ipv4Test, BroadcastPingsAndBadChecksumsAreNotAnswered) {
  Ipv4 h = Header();
  h.destination = A("10.0.0.255");
  Inject(Ipv4Packet(h, Echo()), header::kEtherTypeIpv4, kBroadcastLinkAddress);
  Vec bad = Echo();
  bad[9] ^= std::byte{1};
  Inject(Ipv4Packet(Header(), bad));
  EXPECT_TRUE(frames.empty());
  EXPECT_EQ(host.inet.ipv4->icmp_stats().in_checksum_errors, 1u);
}

TEST_F(Ipv4Test, IcmpErrors) {
  const Vec udp{std::byte{0}, std::byte{7}, std::byte{0}, std::byte{9},
                std::byte{0}, std::byte{8}, std::byte{0}, std::byte{0}};
  struct {
    const char* name;
    Buffer packet;
    int type, code;  // -1: no answer
    uint32_t rest = 0;
  } cases[] = {
      {"port unreachable", Ipv4Packet(Header(IPPROTO_UDP), udp), ICMP_DEST_UNREACH, ICMP_PORT_UNREACH},
      {"protocol unreachable", Ipv4Packet(Header(200), udp), ICMP_DEST_UNREACH, ICMP_PROT_UNREACH},
      {"bad option", Ipv4Packet(Header(), Echo(), Vec{std::byte{130}, std::byte{0}, std::byte{0}, std::byte{0}}),
       ICMP_PARAMETERPROB, 0, 21u << 24},
      {"about an error",
       [&] {
         Vec e(16);
         Icmp{.type = ICMP_DEST_UNREACH, .code = 3}.Write(e);
         return Ipv4Packet(Header(IPPROTO_ICMP), e, Vec{std::byte{130}, std::byte{0}, std::byte{0}, std::byte{0}});
       }(),
       -1, 0},
      {"about a later fragment",
       [&] {
         Ipv4 h = Header(200);
         h.fragment_offset = 8;
         h.more_fragments = true;
         return Ipv4Packet(h, udp, Vec{std::byte{130}, std::byte{0}, std::byte{0}, std::byte{0}});
       }(),
       -1, 0},
  };
  for (auto& c : cases) {
    frames.clear();
    Vec sent = Contents(c.packet);
    Inject(std::move(c.packet));
    if (c.type < 0) {
      EXPECT_TRUE(frames.empty()) << c.name;
      continue;
    }
    ASSERT_EQ(frames.size(), 1u) << c.name;
    Seen s = Last();
    EXPECT_EQ(s.ip.traffic_class, 0xc0);
    Icmp icmp = *Icmp::Parse(s.payload);
    EXPECT_EQ(icmp.type, c.type) << c.name;
    EXPECT_EQ(icmp.code, c.code) << c.name;
    EXPECT_EQ(icmp.rest, c.rest) << c.name;
    EXPECT_EQ(Vec(s.payload.begin() + 8, s.payload.end()), sent) << c.name;
  }
}

TEST_F(Ipv4Test, ErrorsAreLimitedInSizeAndRate) {
  Inject(Ipv4Packet(Header(200), Vec(1400)));
  EXPECT_EQ(Last().ip.total_length, 576);
  frames.clear();
  for (int i = 0; i < 500; i++) {
    Buffer b = Ipv4Packet(Header(200), Vec(20));
    Ethernet{.destination = Mac(1), .source = kPeerMac, .ethertype = header::kEtherTypeIpv4}.Write({b.Prepend(14), 14});
    host.channel->Inject(NewPacket(std::move(b)));
  }
  net.Run(kMillisecond);
  EXPECT_GE(frames.size(), 40u);
  EXPECT_LE(frames.size(), Ipv4Protocol::kErrorBurst + 1);
  EXPECT_GT(host.inet.ipv4->icmp_stats().out_rate_limited, 400u);
}

TEST_F(Ipv4Test, FragmentsComeTogetherInAnyOrderAndTimeOut) {
  Vec echo = Echo(3000);
  auto part = [&](size_t at, size_t n, bool more, uint16_t id) {
    Ipv4 h = Header();
    h.id = id;
    h.fragment_offset = static_cast<uint16_t>(at);
    h.more_fragments = more;
    return Ipv4Packet(h, std::span(echo).subspan(at, n));
  };
  Inject(part(2400, 608, false, 1));
  Inject(part(0, 1200, true, 1));
  EXPECT_TRUE(frames.empty());
  Inject(part(1200, 1200, true, 1));
  // The answer is fragmented in turn.
  ASSERT_EQ(frames.size(), 3u);
  size_t total = 0;
  for (const Vec& f : frames) {
    Ipv4 ip = *Ipv4::Parse(header::Bytes(f).subspan(14), f.size() - 14);
    EXPECT_EQ(ip.fragment_offset, total);
    EXPECT_LE(ip.total_length, 1500);
    total += ip.total_length - 20u;
  }
  EXPECT_EQ(total, echo.size());
  frames.clear();
  Inject(part(0, 1200, true, 2));
  net.Run(Ipv4Protocol::kReassemblyTimeout);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(Icmp::Parse(Last().payload)->type, ICMP_TIME_EXCEEDED);
  EXPECT_EQ(Icmp::Parse(Last().payload)->code, ICMP_EXC_FRAGTIME);
  frames.clear();
  Inject(part(1200, 1200, true, 3));  // without the first there is nobody to tell
  net.Run(Ipv4Protocol::kReassemblyTimeout);
  EXPECT_TRUE(frames.empty());
}

TEST_F(Ipv4Test, FragmentationNeededLowersThePathMtu) {
  auto e = UdpEndpoint::Create(*host.inet.udp, Family::kIpv4);
  ASSERT_TRUE(e->Connect({kPeer, 7}));
  DatagramOptions o = e->options();
  o.dont_fragment = true;
  e->SetOptions(o);
  ASSERT_TRUE(e->Send(Text(std::string(1400, 'x'))));
  net.Run(kMillisecond);
  Vec quoted(frames.back().begin() + 14, frames.back().begin() + 14 + 28);
  auto too_big = [&](uint32_t mtu) {
    Vec m(8);
    Icmp{.type = ICMP_DEST_UNREACH, .code = ICMP_FRAG_NEEDED, .rest = mtu}.Write(m);
    m.insert(m.end(), quoted.begin(), quoted.end());
    header::Store16(m, 2, static_cast<uint16_t>(~Sum(m)));
    Inject(Ipv4Packet(Header(), m));
  };
  Route route = *host.stack.FindRoute({.remote = kPeer});
  too_big(1450);  // more than what was too big: nonsense
  EXPECT_EQ(route.mtu(), 1500u);
  too_big(1000);
  EXPECT_EQ(route.mtu(), 1000u);
  EXPECT_EQ(e->Send(Text(std::string(1400, 'x'))).error().value(), EMSGSIZE);
  too_big(68);
  EXPECT_EQ(route.mtu(), PathMtuCache::kMinIpv4);
  too_big(0);  // an old router: the plateau below 1428, which is not lower
  EXPECT_EQ(route.mtu(), PathMtuCache::kMinIpv4);
  net.Run(PathMtuCache::kLifetime);
  EXPECT_EQ(route.mtu(), 1500u);
  e->Close();
}

TEST_F(Ipv4Test, ForwardsIfToldTo) {
  auto link = std::make_unique<Channel>(Channel::Options{.mtu = 600, .address = Mac(100)});
  Channel* out = link.get();
  RefPtr<Interface> eth1 = *host.stack.AddInterface(
      {.name = "eth1", .link = std::move(link), .autoconfigure = false, .duplicate_probes = 0});
  ASSERT_TRUE(eth1->AddAddress({.prefix = {A("10.1.0.1"), 24}}));
  eth1->SetUp(true);
  ASSERT_TRUE(eth1->neighbours(Family::kIpv4).AddPermanent(A("10.1.0.5"), Mac(5)));
  Ipv4 h = Header();
  h.destination = A("10.1.0.5");
  Inject(Ipv4Packet(h, Echo()));
  EXPECT_EQ(out->queued(), 0u);
  host.stack.SetForwarding(Family::kIpv4, true);
  Inject(Ipv4Packet(h, Echo()));
  PacketPtr p = out->Read();
  ASSERT_NE(p, nullptr);
  Vec bytes = Contents(p->data);
  header::Bytes packet = header::Bytes(bytes).subspan(14);
  EXPECT_EQ(Sum(packet.first(20)), 0xffff);
  EXPECT_EQ(Ipv4::Parse(packet, packet.size())->ttl, 63);
  // The errors a router sends.
  frames.clear();
  h.ttl = 1;
  Inject(Ipv4Packet(h, Echo()));
  EXPECT_EQ(Icmp::Parse(Last().payload)->type, ICMP_TIME_EXCEEDED);
  h.ttl = 64;
  h.dont_fragment = true;
  Inject(Ipv4Packet(h, Echo(1000)));
  EXPECT_EQ(Icmp::Parse(Last().payload)->code, ICMP_FRAG_NEEDED);
  EXPECT_EQ(Icmp::Parse(Last().payload)->rest, 600u);
  h.dont_fragment = false;
  Inject(Ipv4Packet(h, Echo(1000)));
  EXPECT_EQ(out->queued(), 2u);
  h.destination = A("99.0.0.1");
  Inject(Ipv4Packet(h, Echo()));
  EXPECT_EQ(Icmp::Parse(Last().payload)->code, ICMP_NET_UNREACH);
  EXPECT_EQ(host.stack.ip_stats(Family::kIpv4).forwarded, 2u);
}

TEST_F(Ipv4Test, HooksSeeAndDrop) {
  VirtualClock clock;
  SeededRandom random(1);
  Stack stack(clock, random);
  Inet inet = RegisterInet(stack);
  std::vector<HookPlace> places;
  bool drop = false;
  for (HookPlace p :
       {HookPlace::kPrerouting, HookPlace::kInput, HookPlace::kForward, HookPlace::kOutput, HookPlace::kPostrouting}) {
    stack.hooks().Register(p, 0, [&](HookPlace place, Packet& packet, const Interface*, const Interface*) {
      places.push_back(place);
      EXPECT_EQ(packet.destination, A("127.0.0.1"));
      return drop ? HookVerdict::kDrop : HookVerdict::kAccept;
    });
  }
  ASSERT_TRUE(AddLoopback(stack));
  auto e = UdpEndpoint::Create(*inet.udp, Family::kIpv4);
  ASSERT_TRUE(e->Bind({A("127.0.0.1"), 5}));
  ASSERT_TRUE(e->Send(Text("x"), SocketAddress{A("127.0.0.1"), 5}));
  EXPECT_EQ(places,
            (std::vector{HookPlace::kOutput, HookPlace::kPostrouting, HookPlace::kPrerouting, HookPlace::kInput}));
  EXPECT_TRUE(e->Receive());
  drop = true;
  EXPECT_EQ(e->Send(Text("x"), SocketAddress{A("127.0.0.1"), 5}).error().value(), EPERM);
  e->Close();
  stack.Close();
}

TEST_F(Ipv4Test, ArpAnswersAndLearns) {
  auto arp = [&](const Arp& a) {
    Buffer b = Buffer::Allocate(Arp::kSize, 14);
    a.Write(b.MutableView(0));
    Inject(std::move(b), header::kEtherTypeArp, kBroadcastLinkAddress, a.sender_link);
  };
  arp({.operation = Arp::kRequest, .sender_link = Mac(7), .sender = A("10.0.0.7"), .target = kUs});
  ASSERT_EQ(frames.size(), 1u);
  std::optional<Arp> reply = Arp::Parse(header::Bytes(frames[0]).subspan(14));
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->operation, Arp::kReply);
  EXPECT_EQ(reply->sender, kUs);
  EXPECT_EQ(reply->target_link, Mac(7));
  EXPECT_EQ(host.eth0->neighbours(Family::kIpv4).Find(A("10.0.0.7"))->link, Mac(7));
  // Not ours: no answer and nothing learned.
  arp({.operation = Arp::kRequest, .sender_link = Mac(8), .sender = A("10.0.0.8"), .target = A("10.0.0.50")});
  EXPECT_EQ(frames.size(), 1u);
  EXPECT_FALSE(host.eth0->neighbours(Family::kIpv4).Find(A("10.0.0.8")));
  // Our address claimed by another.
  arp({.operation = Arp::kReply, .sender_link = Mac(8), .sender = kUs, .target = kUs});
  EXPECT_TRUE(host.eth0->FindAddress(kUs)->conflict_reported);
  Inject(Buffer::CopyOf(Vec(20), 14), header::kEtherTypeArp);
  EXPECT_EQ(host.inet.arp->malformed(), 1u);
}

TEST_F(Ipv4Test, IgmpReportsAndAnswers) {
  Address group = A("239.1.1.1");
  ASSERT_TRUE(host.eth0->JoinGroup(group));
  net.Run(kMillisecond);
  Seen s = Last();
  EXPECT_EQ(s.ip.protocol, IPPROTO_IGMP);
  EXPECT_EQ(s.ip.destination, A("224.0.0.22"));
  EXPECT_EQ(s.ip.ttl, 1);
  EXPECT_EQ(s.ip.header_length, 24);  // router alert
  EXPECT_EQ(Sum(s.payload), 0xffff);
  EXPECT_EQ(header::Load8(s.payload, 0), header::Igmp::kReportV3);
  EXPECT_EQ(header::LoadIpv4(s.payload, 12), group);
  net.Run(10 * kSecond);
  frames.clear();
  // A version 2 query is answered by a version 2 report.
  Vec query(8);
  header::Igmp{.type = header::Igmp::kQuery, .max_response = 10, .group = A("0.0.0.0")}.Write(query);
  header::Store16(query, 2, static_cast<uint16_t>(~Sum(query)));
  Ipv4 h = Header(IPPROTO_IGMP);
  h.destination = kAllSystemsV4;
  h.ttl = 1;
  Inject(Ipv4Packet(h, query), header::kEtherTypeIpv4, MulticastLinkAddress(kAllSystemsV4));
  net.Run(kSecond);
  s = Last();
  EXPECT_EQ(header::Load8(s.payload, 0), header::Igmp::kReportV2);
  EXPECT_EQ(s.ip.destination, group);
  ASSERT_TRUE(host.eth0->LeaveGroup(group));
  net.Run(kMillisecond);
  EXPECT_EQ(header::Load8(Last().payload, 0), header::Igmp::kLeave);
}

TEST_F(Ipv4Test, SurvivesMutatedPackets) {
  Vec udp(16);
  header::Udp{.source_port = 7, .destination_port = 9, .length = 16}.Write(udp);
  std::vector<Buffer> seeds;
  seeds.push_back(Ipv4Packet(Header(), Echo(40)));
  seeds.push_back(Ipv4Packet(Header(IPPROTO_UDP), udp));
  seeds.push_back(Ipv4Packet(Header(), Echo(40),
                             Vec{std::byte{7}, std::byte{7}, std::byte{4}, std::byte{0}, std::byte{0}, std::byte{0},
                                 std::byte{0}, std::byte{0}}));
  Ipv4 f = Header();
  f.more_fragments = true;
  seeds.push_back(Ipv4Packet(f, Echo(40)));
  Vec error(36);
  Icmp{.type = ICMP_DEST_UNREACH, .code = 4, .rest = 600}.Write(error);
  Ipv4{.total_length = 28, .ttl = 1, .protocol = IPPROTO_UDP, .source = kUs, .destination = kPeer}.Write(
      std::span(error).subspan(8));
  seeds.push_back(Ipv4Packet(Header(), error));
  seeds.push_back(Ipv4Packet(Header(IPPROTO_IGMP), Vec(12)));
  host.stack.SetForwarding(Family::kIpv4, true);
  fuzz::Rounds(5000, [&](uint64_t seed) {
    std::mt19937_64 rng(seed);
    for (const Buffer& original : seeds) {
      Vec b = Contents(original);
      for (size_t k = rng() % 4; k > 0; k--) b[rng() % b.size()] = static_cast<std::byte>(rng());
      if (rng() % 4 == 0) b.resize(rng() % (b.size() + 1));
      // Checksums are put right half of the time, so that what is behind them is reached.
      if (rng() % 2 == 0) {
        size_t length = b.size() >= 20 ? (header::Load8(b, 0) & 0xf) * 4u : 0;
        if (length >= 20 && length <= b.size()) {
          if (header::Load8(b, 9) == IPPROTO_ICMP || header::Load8(b, 9) == IPPROTO_IGMP) {
            std::span<std::byte> body = std::span(b).subspan(length);
            if (body.size() >= 4) {
              header::Store16(body, 2, 0);
              header::Store16(body, 2, static_cast<uint16_t>(~Sum(body)));
            }
          }
          header::Store16(b, 10, 0);
          header::Store16(b, 10, static_cast<uint16_t>(~Sum(std::span(b).first(length))));
        }
      }
      Buffer packet = Buffer::CopyOf(b, 14);
      Ethernet{
          .destination = Mac(1), .source = kPeerMac, .ethertype = static_cast<uint16_t>(rng() % 8 ? 0x0800 : 0x0806)}
          .Write({packet.Prepend(14), 14});
      host.channel->Inject(NewPacket(std::move(packet)));
    }
    net.Run(10 * kMillisecond);
    frames.clear();
  });
  net.Run(100 * kSecond);
  frames.clear();
  host.stack.SetForwarding(Family::kIpv4, false);
  Inject(Ipv4Packet(Header(), Echo()));
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(Icmp::Parse(Last().payload)->type, ICMP_ECHOREPLY);
}

}  // namespace
}  // namespace redoubt::netstack
