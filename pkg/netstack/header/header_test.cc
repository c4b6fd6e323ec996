#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/ipv4.h"
#include "pkg/netstack/header/ipv6.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/header/ndp.h"
#include "test/fuzz/rounds.h"

namespace redoubt::netstack::header {
namespace {

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
Vec Zeros(size_t n) { return Vec(n); }
Address A(std::string_view t) { return *Address::Parse(t); }

TEST(Ethernet, RoundTrip) {
  Ethernet e{.destination = kBroadcastLinkAddress, .source = {{2, 0, 0, 0, 0, 1}}, .ethertype = kEtherTypeArp};
  Vec b(Ethernet::kSize);
  e.Write(b);
  EXPECT_EQ(b, V({255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6}));
  auto p = Ethernet::Parse(b);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->ethertype, kEtherTypeArp);
  EXPECT_EQ(p->source, e.source);
  EXPECT_FALSE(Ethernet::Parse(Bytes(b).first(13)));
}

TEST(Arp, RoundTripAndRejects) {
  Arp arp{.operation = Arp::kRequest,
          .sender_link = {{2, 0, 0, 0, 0, 1}},
          .sender = A("10.0.0.1"),
          .target = A("10.0.0.2")};
  Vec b(Arp::kSize);
  arp.Write(b);
  EXPECT_EQ(b, V({0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2}));
  ASSERT_TRUE(Arp::Parse(b));
  EXPECT_EQ(Arp::Parse(b)->target, arp.target);
  struct {
    size_t at;
    int value;
  } bad[] = {{1, 2}, {2, 7}, {4, 7}, {5, 16}, {7, 3}, {7, 0}, {8, 1}, {14, 224}};
  for (auto [at, value] : bad) {
    Vec c = b;
    c[at] = static_cast<std::byte>(value);
    EXPECT_FALSE(Arp::Parse(c)) << at;
  }
  EXPECT_FALSE(Arp::Parse(Bytes(b).first(27)));
}

Vec Ipv4Packet() {
  Ipv4 h{.traffic_class = 0x10,
         .total_length = 28,
         .id = 0x1234,
         .dont_fragment = true,
         .ttl = 64,
         .protocol = 17,
         .checksum = 0xabcd,
         .source = A("192.0.2.1"),
         .destination = A("198.51.100.2")};
  Vec b(28);
  h.Write(b);
  return b;
}

TEST(Ipv4, RoundTripAndRejects) {
  Vec b = Ipv4Packet();
  auto h = Ipv4::Parse(b, b.size());
  ASSERT_TRUE(h);
  EXPECT_EQ(h->header_length, 20);
  EXPECT_EQ(h->total_length, 28);
  EXPECT_TRUE(h->dont_fragment);
  EXPECT_FALSE(h->is_fragment());
  EXPECT_EQ(h->destination, A("198.51.100.2"));
  Vec again(28);
  h->Write(again);
  EXPECT_EQ(again, b);
  struct {
    size_t at;
    int value;
    const char* why;
  } bad[] = {{0, 0x65, "version"},
             {0, 0x44, "header too short"},
             {0, 0x4f, "header beyond the packet"},
             {3, 19, "total below header"},
             {3, 29, "total beyond the packet"}};
  for (auto& c : bad) {
    Vec d = b;
    d[c.at] = static_cast<std::byte>(c.value);
    EXPECT_FALSE(Ipv4::Parse(d, d.size())) << c.why;
  }
  b[6] = std::byte{0x20};
  b[7] = std::byte{0x03};
  h = Ipv4::Parse(b, b.size());
  EXPECT_TRUE(h->more_fragments);
  EXPECT_EQ(h->fragment_offset, 24);
}

TEST(Ipv4Options, Table) {
  struct {
    const char* name;
    Vec bytes;
    bool ok;
    size_t error_at;
  } cases[] = {
      {"none", {}, true, 0},
      {"nops and end", V({1, 1, 1, 0}), true, 0},
      {"bytes behind the end are not looked at", V({0, 7, 255, 1}), true, 0},
      {"router alert", V({148, 4, 0, 0}), true, 0},
      {"router alert of a wrong length", V({148, 3, 0, 0}), false, 1},
      {"length 0", V({130, 0, 0, 0}), false, 1},
      {"length 1", V({130, 1, 0, 0}), false, 1},
      {"beyond the end", V({130, 5, 0, 0}), false, 1},
      {"no length", V({1, 1, 1, 130}), false, 4},
      {"record route", V({7, 7, 4, 0, 0, 0, 0, 0}), true, 0},
      {"record route, pointer too small", V({7, 7, 3, 0, 0, 0, 0, 0}), false, 2},
      {"timestamp", V({68, 8, 5, 0, 0, 0, 0, 0}), true, 0},
      {"timestamp, pointer too small", V({68, 8, 4, 0, 0, 0, 0, 0}), false, 2},
      {"timestamp too short", V({68, 3, 5, 0}), false, 1},
  };
  for (auto& c : cases) {
    size_t at = 0;
    auto r = Ipv4Options::Parse(c.bytes, at);
    EXPECT_EQ(r.has_value(), c.ok) << c.name;
    if (!c.ok) {
      EXPECT_EQ(at, c.error_at) << c.name;
    }
  }
  size_t at = 0;
  EXPECT_TRUE(Ipv4Options::Parse(V({131, 3, 4, 0}), at)->source_route);
  EXPECT_TRUE(Ipv4Options::Parse(V({148, 4, 0, 0}), at)->router_alert);
  EXPECT_EQ(Ipv4Options::Parse(V({1, 7, 7, 4, 0, 0, 0, 0}), at)->record_route_at, 1);
}

TEST(Ipv4Options, OnlyCopiedOnesGoIntoLaterFragments) {
  Vec out(40);
  size_t n = CopiedOptions(V({7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 1}), out);
  EXPECT_EQ(n, 4u);
  out.resize(4);
  EXPECT_EQ(out, V({148, 4, 0, 0}));
  out.resize(40);
  EXPECT_EQ(CopiedOptions(V({7, 7, 4, 0, 0, 0, 0, 0}), out), 0u);
  EXPECT_EQ(CopiedOptions(V({130, 3, 9, 0}), out), 4u);  // padded
}

Vec Ipv6Packet(int next, const Vec& payload) {
  Ipv6 h{.traffic_class = 0xb8,
         .flow_label = 0x12345,
         .payload_length = static_cast<uint16_t>(payload.size()),
         .next_header = static_cast<uint8_t>(next),
         .hop_limit = 255,
         .source = A("fe80::1"),
         .destination = A("ff02::1")};
  Vec b(Ipv6::kSize);
  h.Write(b);
  return b + payload;
}

TEST(Ipv6, RoundTripAndRejects) {
  Vec b = Ipv6Packet(58, Zeros(8));
  auto h = Ipv6::Parse(b, b.size());
  ASSERT_TRUE(h);
  EXPECT_EQ(h->traffic_class, 0xb8);
  EXPECT_EQ(h->flow_label, 0x12345u);
  EXPECT_EQ(h->payload_length, 8);
  EXPECT_EQ(h->source, A("fe80::1"));
  EXPECT_FALSE(Ipv6::Parse(b, b.size() - 1));
  EXPECT_FALSE(Ipv6::Parse(Bytes(b).first(39), 39));
  b[0] = std::byte{0x4b};
  EXPECT_FALSE(Ipv6::Parse(b, b.size()));
}

TEST(Ipv6Extensions, Table) {
  using Verdict = Ipv6Extensions::Verdict;
  const Vec kHop = V({58, 0, 5, 2, 0, 0, 1, 0});       // router alert, PadN
  const Vec kRouting0 = V({58, 0, 0, 0, 0, 0, 0, 0});  // none left
  const Vec kRouting1 = V({58, 0, 0, 1, 0, 0, 0, 0});  // one left
  struct {
    const char* name;
    int first;
    Vec bytes;
    Verdict verdict;
    int code;
    uint32_t pointer;
    int next;
    size_t offset;
  } cases[] = {
      {"none", 58, Zeros(8), Verdict::kAccept, 0, 0, 58, 40},
      {"no next header", 59, {}, Verdict::kAccept, 0, 0, 59, 40},
      {"hop by hop", 0, kHop + Zeros(8), Verdict::kAccept, 0, 0, 58, 48},
      {"hop by hop twice", 0, V({0, 0, 1, 4, 0, 0, 0, 0}) + kHop, Verdict::kParameterProblem, 1, 40, 0, 0},
      {"hop by hop behind destination options", 60, V({0, 0, 1, 4, 0, 0, 0, 0}) + kHop, Verdict::kParameterProblem, 1,
       40, 0, 0},
      {"cut off in the middle", 0, V({58, 1, 1, 4, 0, 0, 0, 0}), Verdict::kMalformed, 0, 0, 0, 0},
      {"cut off at the start", 60, V({58, 0, 1, 4}), Verdict::kMalformed, 0, 0, 0, 0},
      {"option beyond its header", 60, V({58, 0, 1, 5, 0, 0, 0, 0}) + Zeros(8), Verdict::kMalformed, 0, 0, 0, 0},
      {"option to skip", 60, V({58, 0, 0x1e, 4, 0, 0, 0, 0}), Verdict::kAccept, 0, 0, 58, 48},
      {"option to discard", 60, V({58, 0, 0x5e, 4, 0, 0, 0, 0}), Verdict::kDiscard, 2, 42, 0, 0},
      {"option to answer", 60, V({58, 0, 0x9e, 4, 0, 0, 0, 0}), Verdict::kParameterProblem, 2, 42, 0, 0},
      {"option to answer unless multicast", 60, V({58, 0, 0xde, 4, 0, 0, 0, 0}), Verdict::kParameterProblem, 2, 42, 0,
       0},
      {"routing, none left", 43, kRouting0, Verdict::kAccept, 0, 0, 58, 48},
      {"routing, one left", 43, kRouting1, Verdict::kParameterProblem, 0, 42, 0, 0},
      {"fragment", 44, V({17, 0, 0x05, 0xa9, 0, 0, 0, 9}), Verdict::kAccept, 0, 0, 44, 48},
      {"fragment cut off", 44, V({17, 0, 0, 1}), Verdict::kMalformed, 0, 0, 0, 0},
  };
  for (auto& c : cases) {
    Vec p = Ipv6Packet(c.first, c.bytes);
    Ipv6Extensions r = Ipv6Extensions::Walk(p, static_cast<uint8_t>(c.first), 6, Ipv6::kSize);
    EXPECT_EQ(r.verdict, c.verdict) << c.name;
    if (c.verdict == Verdict::kAccept) {
      EXPECT_EQ(r.next_header, c.next) << c.name;
      EXPECT_EQ(r.offset, c.offset) << c.name;
    } else if (c.verdict == Verdict::kParameterProblem) {
      EXPECT_EQ(r.code, c.code) << c.name;
      EXPECT_EQ(r.pointer, c.pointer) << c.name;
    }
  }
  Vec p = Ipv6Packet(44, V({17, 0, 0x05, 0xa9, 0, 0, 0, 9}));
  Ipv6Extensions r = Ipv6Extensions::Walk(p, 44, 6, 40);
  ASSERT_TRUE(r.fragment);
  EXPECT_EQ(r.fragment->offset, 0x5a8);
  EXPECT_TRUE(r.fragment->more);
  EXPECT_EQ(r.fragment->id, 9u);
  EXPECT_EQ(r.fragment->next_header, 17);
  Vec out(8);
  r.fragment->Write(out);
  EXPECT_EQ(out, V({17, 0, 0x05, 0xa9, 0, 0, 0, 9}));
  EXPECT_TRUE(Ipv6Extensions::Walk(Ipv6Packet(0, kHop), 0, 6, 40).router_alert);
}

TEST(Ipv6Extensions, ALongChainIsRefused) {
  Vec chain;
  for (int i = 0; i < 9; i++) chain = chain + V({60, 0, 1, 4, 0, 0, 0, 0});
  EXPECT_EQ(Ipv6Extensions::Walk(Ipv6Packet(60, chain), 60, 6, 40).verdict, Ipv6Extensions::Verdict::kMalformed);
}

TEST(Icmp, RoundTrip) {
  Vec b(8);
  Icmp{.type = 8, .code = 0, .checksum = 1, .rest = 0x00050006}.Write(b);
  auto h = Icmp::Parse(b);
  ASSERT_TRUE(h);
  EXPECT_EQ(h->echo_id(), 5);
  EXPECT_EQ(h->echo_sequence(), 6);
  EXPECT_TRUE(IsIcmpV4Error(3) && IsIcmpV4Error(11) && !IsIcmpV4Error(0) && !IsIcmpV4Error(8) && !IsIcmpV4Error(13));
  EXPECT_TRUE(IsIcmpV6Error(1) && IsIcmpV6Error(127) && !IsIcmpV6Error(128));
}

TEST(Udp, RoundTripAndRejects) {
  Vec b(10);
  Udp{.source_port = 53, .destination_port = 65535, .length = 10, .checksum = 7}.Write(b);
  EXPECT_EQ(Udp::Parse(b, 10)->destination_port, 65535);
  EXPECT_TRUE(Udp::Parse(b, 11));  // shorter than its IP payload: allowed
  EXPECT_FALSE(Udp::Parse(b, 9));
  b[5] = std::byte{7};
  EXPECT_FALSE(Udp::Parse(b, 10));
}

TEST(Groups, RoundTripAndCodes) {
  Vec b(8);
  Igmp{.type = Igmp::kQuery, .max_response = 100, .group = A("224.1.2.3")}.Write(b);
  EXPECT_EQ(Igmp::Parse(b)->group, A("224.1.2.3"));
  Vec c(24);
  Mld{.type = 130, .max_response = 10000, .group = A("ff02::9")}.Write(c);
  EXPECT_EQ(Mld::Parse(c)->group, A("ff02::9"));
  EXPECT_EQ(Mld::Parse(c)->max_response, 10000);
  EXPECT_EQ(DecodeIgmpV3Code(127), 127u);
  EXPECT_EQ(DecodeIgmpV3Code(128), 128u);
  EXPECT_EQ(DecodeIgmpV3Code(255), 31744u);
  EXPECT_EQ(DecodeMldV2Code(32767), 32767u);
  EXPECT_EQ(DecodeMldV2Code(32768), 32768u);
  EXPECT_EQ(DecodeMldV2Code(65535), 8387584u);
}

TEST(Ndp, NeighbourRoundTripAndRejects) {
  NdpNeighbour n{.type = 136, .solicited = true, .override = true, .target = A("fe80::5")};
  Vec b(40);
  size_t size = n.Write(b, LinkAddress{{2, 0, 0, 0, 0, 9}}, std::array<uint8_t, 6>{1, 2, 3, 4, 5, 6});
  EXPECT_EQ(size, 40u);
  auto p = NdpNeighbour::Parse(b);
  ASSERT_TRUE(p);
  EXPECT_TRUE(p->solicited && p->override && !p->router);
  EXPECT_EQ(p->options.target_link, (LinkAddress{{2, 0, 0, 0, 0, 9}}));
  EXPECT_TRUE(p->options.has_nonce);
  EXPECT_EQ(p->options.nonce[5], 6);
  Vec zero_option = b;
  zero_option[25] = std::byte{0};
  EXPECT_FALSE(NdpNeighbour::Parse(zero_option));
  Vec multicast = b;
  multicast[8] = std::byte{0xff};
  EXPECT_FALSE(NdpNeighbour::Parse(multicast));
  EXPECT_FALSE(NdpNeighbour::Parse(Bytes(b).first(39)));
  EXPECT_FALSE(NdpNeighbour::Parse(Bytes(b).first(23)));
}

Vec RouterAdvertisement() {
  return V({134, 0, 0, 0, 64, 0xc0, 0x07, 0x08, 0, 0, 0x75, 0x30, 0, 0, 3, 0xe8}) +
         V({3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 7, 8, 0, 0, 0, 0}) +
         V({0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) + V({5, 1, 0, 0, 0, 0, 5, 0xdc}) +
         V({1, 1, 2, 0, 0, 0, 0, 1});
}

TEST(Ndp, RouterAdvertisement) {
  auto p = NdpRouterAdvertisement::Parse(RouterAdvertisement());
  ASSERT_TRUE(p);
  EXPECT_EQ(p->hop_limit, 64);
  EXPECT_TRUE(p->managed && p->other);
  EXPECT_EQ(p->lifetime, 1800);
  EXPECT_EQ(p->reachable_time, 30000u);
  EXPECT_EQ(p->retransmit_timer, 1000u);
  ASSERT_EQ(p->options.prefix_count, 1u);
  EXPECT_EQ(p->options.prefixes[0].prefix, (Prefix{A("2001:db8:1::"), 64}));
  EXPECT_TRUE(p->options.prefixes[0].on_link && p->options.prefixes[0].autonomous);
  EXPECT_EQ(p->options.prefixes[0].valid_lifetime, 3600u);
  EXPECT_EQ(p->options.prefixes[0].preferred_lifetime, 1800u);
  EXPECT_EQ(p->options.mtu, 1500u);
  EXPECT_TRUE(p->options.source_link);
}

// Mutated packets, each in a block of exactly its size so that the address sanitizer sees every byte read beyond it;
// and what a parser accepts must keep its promises.
TEST(Fuzz, ParsersStayInsideAndKeepTheirPromises) {
  std::vector<Vec> seeds = {
      Ipv4Packet(),
      Ipv6Packet(0, V({43, 0, 5, 2, 0, 0, 1, 0}) + V({60, 0, 0, 0, 0, 0, 0, 0}) + V({44, 0, 1, 4, 0, 0, 0, 0}) +
                        V({17, 0, 0, 1, 0, 0, 0, 9}) + Zeros(16)),
      Ipv6Packet(60, V({17, 2, 0x1e, 4, 0, 0, 0, 0, 1, 14}) + Zeros(14) + Zeros(8)),
      RouterAdvertisement(),
      V({7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 1, 68, 8, 5, 0, 0, 0, 0, 0}),
      V({136, 0, 0, 0, 0x60, 0, 0, 0}) + Zeros(16) + V({2, 1, 0, 0, 0, 0, 0, 1}),
      V({0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2}),
      V({0, 53, 0, 54, 0, 10, 0, 0, 1, 2}),
  };
  uint64_t accepted = 0;
  fuzz::Rounds(20'000, [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    for (const Vec& original : seeds) {
      Vec b = original;
      for (size_t n = random() % 4; n > 0; n--) b[random() % b.size()] = static_cast<std::byte>(random());
      Vec c(b.begin(), b.begin() + static_cast<long>(random() % 4 == 0 ? random() % (b.size() + 1) : b.size()));
      c.shrink_to_fit();
      if (auto h = Ipv4::Parse(c, c.size())) {
        accepted++;
        ASSERT_LE(h->header_length, h->total_length);
        ASSERT_LE(h->total_length, c.size());
        size_t at = 0;
        Ipv4Options::Parse(Bytes(c).subspan(20, h->header_length - 20u), at);
      }
      size_t at = 0;
      if (auto o = Ipv4Options::Parse(Bytes(c).first(std::min<size_t>(c.size(), 40)), at)) {
        if (o->record_route_at >= 0) {
          ASSERT_LT(o->record_route_at + 2, static_cast<int>(c.size()));
        }
        if (o->timestamp_at >= 0) {
          ASSERT_LT(o->timestamp_at + 3, static_cast<int>(c.size()));
        }
      }
      Vec out(40);
      ASSERT_LE(CopiedOptions(Bytes(c).first(std::min<size_t>(c.size(), 40)), out), 40u);
      if (auto h = Ipv6::Parse(c, c.size())) {
        accepted++;
        ASSERT_LE(h->payload_length + 40u, c.size());
        Ipv6Extensions r = Ipv6Extensions::Walk(c, h->next_header, 6, 40);
        if (r.verdict == Ipv6Extensions::Verdict::kAccept) {
          ASSERT_LE(r.offset, c.size());
        }
        if (r.verdict == Ipv6Extensions::Verdict::kParameterProblem) {
          ASSERT_LT(r.pointer, c.size());
        }
      }
      Ethernet::Parse(c);
      Arp::Parse(c);
      Icmp::Parse(c);
      Igmp::Parse(c);
      Mld::Parse(c);
      if (auto h = Udp::Parse(c, c.size())) {
        ASSERT_LE(h->length, c.size());
      }
      if (auto n = NdpNeighbour::Parse(c)) {
        ASSERT_FALSE(n->target.IsMulticast());
      }
      if (auto r = NdpRouterAdvertisement::Parse(c)) {
        ASSERT_LE(r->options.prefix_count, NdpOptions::kMaxPrefixes);
      }
    }
  });
  EXPECT_GT(accepted, 0u);
}

}  // namespace
}  // namespace redoubt::netstack::header
