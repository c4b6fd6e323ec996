#include "pkg/netstack/raw/packet_endpoint.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/netstack/header/ipv4.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/raw/fanout.h"
#include "pkg/netstack/testing/network.h"

namespace redoubt::netstack {
namespace {

using testing::A;
using testing::Contents;
using testing::Host;
using testing::Mac;
using testing::Network;
using testing::Text;

struct PacketEndpointTest : ::testing::Test {
  Network net{6};
  Host& a = net.AddHost();
  Host& b = net.AddHost();
  PacketEndpointTest() { net.Run(20 * kSecond); }

  RefPtr<PacketEndpoint> Make(PacketEndpoint::Kind kind, uint16_t ethertype) {
    auto e = PacketEndpoint::Create(a.stack, kind);
    EXPECT_TRUE(e->Bind(ethertype, 0));
    return e;
  }
  static Buffer Frame(const LinkAddress& to, const LinkAddress& from, std::string_view text) {
    Buffer frame = Text(text);
    header::Ethernet{.destination = to, .source = from, .ethertype = 0x88b5}.Write({frame.Prepend(14), 14});
    return frame;
  }
};

TEST_F(PacketEndpointTest, PacketSocketsSeeFramesBothWays) {
  auto all = PacketEndpoint::Create(a.stack, PacketEndpoint::Kind::kRaw);
  auto cooked = PacketEndpoint::Create(a.stack, PacketEndpoint::Kind::kCooked);
  EXPECT_EQ(all->Bind(header::kEtherTypeAll, 99).error().value(), ENODEV);
  ASSERT_TRUE(all->Bind(header::kEtherTypeAll, a.eth0->index()));
  ASSERT_TRUE(cooked->Bind(header::kEtherTypeIpv4, 0));
  auto client = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
  ASSERT_TRUE(client->Send(Text("x"), SocketAddress{A("10.0.0.2"), 9}));  // refused
  net.Run(kSecond);
  std::vector<PacketType> types;
  while (auto p = all->Receive()) {
    types.push_back((*p)->type);
    EXPECT_TRUE(header::Ethernet::Parse(Contents((*p)->data)));
  }
  // ARP and its answer, the datagram, the error.
  EXPECT_EQ(types, (std::vector{PacketType::kOutgoing, PacketType::kHost, PacketType::kOutgoing, PacketType::kHost}));
  auto got = cooked->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->type, PacketType::kHost);
  EXPECT_EQ((*got)->link_source, b.mac);
  EXPECT_TRUE(header::Ipv4::Parse(Contents((*got)->data), (*got)->data.size()));
  EXPECT_FALSE(cooked->Receive());  // nothing of what we send ourselves
  // Sending.
  auto other = PacketEndpoint::Create(b.stack, PacketEndpoint::Kind::kCooked);
  ASSERT_TRUE(other->Bind(0x88b5, 0));
  ASSERT_TRUE(cooked->Send(Text("cooked"), a.eth0->index(), b.mac, 0x88b5));
  Buffer frame = Text("raw frame");
  header::Ethernet{.destination = b.mac, .source = a.mac, .ethertype = 0x88b5}.Write({frame.Prepend(14), 14});
  ASSERT_TRUE(all->Send(std::move(frame), a.eth0->index()));
  EXPECT_EQ(all->Send(Text("x"), a.eth0->index()).error().value(), EINVAL);
  EXPECT_EQ(all->Send(Buffer::Allocate(1515), a.eth0->index()).error().value(), EMSGSIZE);
  EXPECT_EQ(all->Send(Text("x"), 99).error().value(), ENXIO);
  net.Run(kSecond);
  EXPECT_EQ(Text((*other->Receive())->data), "cooked");
  EXPECT_EQ(Text((*other->Receive())->data), "raw frame");
  // The loopback has no link headers; readers see zeros as on Linux.
  ASSERT_TRUE(all->Bind(header::kEtherTypeAll, a.lo->index()));
  while (all->Receive()) {
  }
  ASSERT_TRUE(client->Send(Text("x"), SocketAddress{A("127.0.0.1"), 9}));
  auto on_lo = all->Receive();
  ASSERT_TRUE(on_lo);
  auto e = header::Ethernet::Parse(Contents((*on_lo)->data));
  EXPECT_TRUE(e->source.IsUnspecified());
  EXPECT_EQ(e->ethertype, header::kEtherTypeIpv4);
  for (auto& p : {all, cooked, other}) p->Close();
  EXPECT_EQ(all->RefCount(), 1 + 0);
  client->Close();
}

TEST_F(PacketEndpointTest, DoesNotSeeWhatItSendsItself) {
  auto one = Make(PacketEndpoint::Kind::kRaw, header::kEtherTypeAll);
  auto two = Make(PacketEndpoint::Kind::kRaw, header::kEtherTypeAll);
  ASSERT_TRUE(one->Send(Frame(b.mac, a.mac, "x"), a.eth0->index()));
  EXPECT_FALSE(one->Receive());
  EXPECT_EQ((*two->Receive())->type, PacketType::kOutgoing);
  two->IgnoreOutgoing(true);
  ASSERT_TRUE(one->Send(Frame(b.mac, a.mac, "x"), a.eth0->index()));
  EXPECT_FALSE(two->Receive());
  one->Close();
  two->Close();
}

TEST_F(PacketEndpointTest, AFilterSeesTheFrameAndItsWholeSizeIsKept) {
  const std::vector<sock_filter> code = {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
                                         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x88b5, 0, 1),
                                         BPF_STMT(BPF_RET | BPF_K, 15), BPF_STMT(BPF_RET | BPF_K, 0)};
  auto raw = Make(PacketEndpoint::Kind::kRaw, header::kEtherTypeAll);
  raw->SetFilter(std::make_shared<const bpf::Program>(*bpf::Program::CreateForPackets(code)));
  auto sender = PacketEndpoint::Create(b.stack, PacketEndpoint::Kind::kRaw);
  ASSERT_TRUE(sender->Send(Frame(a.mac, b.mac, "hello"), b.eth0->index()));
  auto client = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
  ASSERT_TRUE(client->Send(Text("x"), SocketAddress{A("10.0.0.2"), 9}));
  net.Run(kSecond);
  auto got = raw->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->data.size(), 15u);
  EXPECT_EQ((*got)->whole_size, 19u);
  EXPECT_FALSE(raw->Receive());
  EXPECT_EQ(raw->TakeStatistics().received, 1u);
  EXPECT_EQ(raw->TakeStatistics().received, 0u);
  for (auto& p : {raw, sender}) p->Close();
  client->Close();
}

// A program for SOCK_DGRAM begins at the network header, and still finds the link header, and what is beside the bytes.
TEST_F(PacketEndpointTest, AFilterOfACookedEndpointFindsBothHeaders) {
  const std::vector<sock_filter> code = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'h', 0, 7),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, static_cast<uint32_t>(SKF_LL_OFF + 12)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x88b5, 0, 5),
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, static_cast<uint32_t>(SKF_NET_OFF + 1)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'e', 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_HATYPE)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 100),
      BPF_STMT(BPF_RET | BPF_K, 0)};
  auto cooked = Make(PacketEndpoint::Kind::kCooked, 0x88b5);
  cooked->SetFilter(std::make_shared<const bpf::Program>(*bpf::Program::CreateForPackets(code)));
  auto sender = PacketEndpoint::Create(b.stack, PacketEndpoint::Kind::kRaw);
  ASSERT_TRUE(sender->Send(Frame(a.mac, b.mac, "hello"), b.eth0->index()));
  ASSERT_TRUE(sender->Send(Frame(a.mac, b.mac, "hollow"), b.eth0->index()));
  net.Run(kSecond);
  EXPECT_EQ(Text((*cooked->Receive())->data), "hello");
  EXPECT_FALSE(cooked->Receive());
  for (auto& p : {cooked, sender}) p->Close();
}

TEST_F(PacketEndpointTest, FramesForOthersComeWhenSomebodyWantsThem) {
  auto raw = Make(PacketEndpoint::Kind::kRaw, 0x88b5);
  auto sender = PacketEndpoint::Create(b.stack, PacketEndpoint::Kind::kRaw);
  auto comes = [&] {
    a.channel->Inject(NewPacket(Frame(Mac(77), b.mac, "x")));
    return raw->Receive().has_value();
  };
  const uint32_t eth0 = a.eth0->index();
  using enum PacketEndpoint::Wish;
  EXPECT_FALSE(comes());
  EXPECT_EQ(raw->AddMembership(99, kPromiscuous, {}).error().value(), ENODEV);
  ASSERT_TRUE(raw->AddMembership(eth0, kPromiscuous, {}));
  ASSERT_TRUE(raw->AddMembership(eth0, kPromiscuous, {}));
  EXPECT_TRUE(comes());
  raw->DropMembership(eth0, kPromiscuous, {});
  EXPECT_TRUE(comes());
  raw->DropMembership(eth0, kPromiscuous, {});
  EXPECT_FALSE(comes());
  raw->DropMembership(eth0, kPromiscuous, {});
  EXPECT_EQ(a.eth0->promiscuity(), 0u);
  ASSERT_TRUE(raw->AddMembership(eth0, kPromiscuous, {}));
  raw->Close();
  EXPECT_EQ(a.eth0->promiscuity(), 0u);
  sender->Close();
}

TEST_F(PacketEndpointTest, MembershipsAreBounded) {
  auto raw = Make(PacketEndpoint::Kind::kRaw, 0);
  for (size_t i = 0; i < PacketEndpoint::kMaxMemberships; i++) {
    ASSERT_TRUE(raw->AddMembership(a.eth0->index(), PacketEndpoint::Wish::kMulticast, Mac(static_cast<uint8_t>(i))));
  }
  EXPECT_EQ(raw->AddMembership(a.eth0->index(), PacketEndpoint::Wish::kMulticast, Mac(200)).error().value(), ENOBUFS);
  raw->Close();
}

TEST_F(PacketEndpointTest, WhatTheQueueHasNoRoomForIsCounted) {
  auto raw = Make(PacketEndpoint::Kind::kRaw, 0x88b5);
  raw->SetOptions({.receive_buffer = 1});
  for (int i = 0; i < 3; i++) a.channel->Inject(NewPacket(Frame(a.mac, b.mac, "x")));
  const PacketEndpoint::Statistics s = raw->TakeStatistics();
  EXPECT_EQ(s.received, 1u);
  EXPECT_EQ(s.dropped, 2u);
  raw->Close();
}

TEST_F(PacketEndpointTest, ASinkTakesFramesInPlaceOfTheQueue) {
  struct Sink final : FrameSink {
    bool Take(const Packet& frame, size_t network) override {
      EXPECT_EQ(network, 14u);
      if (taken == 2) return false;
      taken++;
      return true;
    }
    int taken = 0;
  };
  auto raw = Make(PacketEndpoint::Kind::kRaw, 0x88b5);
  a.channel->Inject(NewPacket(Frame(a.mac, b.mac, "x")));
  auto sink = std::make_shared<Sink>();
  raw->SetSink(sink);
  for (int i = 0; i < 3; i++) a.channel->Inject(NewPacket(Frame(a.mac, b.mac, "x")));
  EXPECT_EQ(sink->taken, 2);
  EXPECT_FALSE(raw->Receive());
  EXPECT_EQ(raw->TakeStatistics().dropped, 1u);
  raw->SetSink(nullptr);
  a.channel->Inject(NewPacket(Frame(a.mac, b.mac, "x")));
  EXPECT_TRUE(raw->Receive());
  raw->Close();
  EXPECT_EQ(sink.use_count(), 1);
}

TEST_F(PacketEndpointTest, AnInterfaceThatIsDownIsSaidToBe) {
  a.eth0->SetUp(false);
  auto raw = PacketEndpoint::Create(a.stack, PacketEndpoint::Kind::kRaw);
  ASSERT_TRUE(raw->Bind(header::kEtherTypeAll, a.eth0->index()));
  EXPECT_EQ(raw->TakeError(), ENETDOWN);
  EXPECT_EQ(raw->Send(Frame(b.mac, a.mac, "x"), a.eth0->index()).error().value(), ENETDOWN);
  raw->Close();
}

// An IPv4 packet with the first bytes of UDP's header.
PacketPtr Flow(std::array<uint8_t, 2> hosts, std::array<uint8_t, 2> ports, uint8_t fragment_offset = 0) {
  std::array<uint8_t, 24> bytes{0x45, 0, 0, 24,       0,  1, 0, fragment_offset, 64, 17,       0, 0,
                                10,   0, 0, hosts[0], 10, 0, 0, hosts[1],        0,  ports[0], 0, ports[1]};
  PacketPtr p = NewPacket(Buffer::CopyOf(std::as_bytes(std::span(bytes))));
  p->ethertype = header::kEtherTypeIpv4;
  return p;
}

TEST(FanoutTest, AFlowHasOneHash) {
  const uint32_t hash = FlowHash(*Flow({1, 2}, {3, 4}), 0);
  EXPECT_EQ(FlowHash(*Flow({1, 2}, {3, 4}), 0), hash);
  EXPECT_EQ(FlowHash(*Flow({2, 1}, {4, 3}), 0), hash) << "the other direction";
  EXPECT_NE(FlowHash(*Flow({1, 2}, {3, 5}), 0), hash);
  EXPECT_NE(FlowHash(*Flow({1, 3}, {3, 4}), 0), hash);
  // What stands in a later fragment is no port.
  EXPECT_EQ(FlowHash(*Flow({1, 2}, {3, 4}, 8), 0), FlowHash(*Flow({1, 2}, {7, 8}, 16), 0));
}

TEST(FanoutTest, WhatIsCutOffIsNoPacketOfAnyFlow) {
  for (size_t n = 0; n < 24; n++) {
    PacketPtr p = Flow({1, 2}, {3, 4});
    p->data.CapLength(n);
    (void)FlowHash(*p, 0);
    (void)FlowHash(*p, 14);
    p->ethertype = header::kEtherTypeIpv6;
    (void)FlowHash(*p, 0);
  }
}

TEST_F(PacketEndpointTest, AGroupIsBounded) {
  FanoutGroups groups;
  std::vector<RefPtr<PacketEndpoint>> members;
  for (size_t i = 0; i < FanoutGroup::kMaxMembers; i++) {
    members.push_back(Make(PacketEndpoint::Kind::kCooked, header::kEtherTypeIpv4));
    ASSERT_TRUE(members.back()->JoinFanout(groups, 5, {}));
  }
  auto more = Make(PacketEndpoint::Kind::kCooked, header::kEtherTypeIpv4);
  EXPECT_EQ(more->JoinFanout(groups, 5, {}).error().value(), ENOSPC);
  EXPECT_EQ(members[0]->JoinFanout(groups, 6, {}).error().value(), EALREADY);
  EXPECT_EQ(more->JoinFanout(groups, 5, {.kind = FanoutKind::kCpu}).error().value(), EINVAL);
  // Once all have gone the number is free for another rule.
  for (auto& m : members) m->Close();
  EXPECT_TRUE(more->JoinFanout(groups, 5, {.kind = FanoutKind::kCpu}));
  more->Close();
}

}  // namespace
}  // namespace redoubt::netstack
