#include "pkg/netstack/udp/udp.h"

#include <gtest/gtest.h>

#include "pkg/netstack/testing/network.h"

namespace redoubt::netstack {
namespace {

using testing::A;
using testing::Host;
using testing::Network;
using testing::Text;

struct UdpBase {
  Network net{1};
  Host& a = net.AddHost();
  Host& b = net.AddHost();
  std::vector<RefPtr<UdpEndpoint>> made;

  ~UdpBase() {
    for (auto& e : made) e->Close();
  }
  RefPtr<UdpEndpoint> New(Host& h, Family family) {
    made.push_back(UdpEndpoint::Create(*h.inet.udp, family));
    return made.back();
  }
};
struct UdpFixture : UdpBase, ::testing::Test {};
struct UdpTest : UdpBase, ::testing::TestWithParam<Family> {
  bool v4() { return GetParam() == Family::kIpv4; }
  Address Of(int host) {
    if (v4()) return Address::Ipv4(10, 0, 0, static_cast<uint8_t>(host));
    return A(host == 1 ? "2001:db8::1" : "2001:db8::2");
  }
  Address Lo() { return Address::Loopback(GetParam()); }
  using UdpBase::New;
  RefPtr<UdpEndpoint> New(Host& h) { return New(h, GetParam()); }
  RefPtr<UdpEndpoint> Bound(Host& h, uint16_t port, Address address = {}) {
    auto e = New(h);
    Result<> r = e->Bind({address.empty() ? Address::Any(GetParam()) : address, port});
    EXPECT_TRUE(r);
    return e;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, UdpTest, ::testing::Values(Family::kIpv4, Family::kIpv6),
                         [](const auto& p) { return p.param == Family::kIpv4 ? "V4" : "V6"; });

TEST_P(UdpTest, DatagramsArriveWithTheirAddresses) {
  auto server = Bound(b, 53);
  auto client = New(a);
  EXPECT_EQ(server->Receive().error().value(), EAGAIN);
  EXPECT_EQ(server->Readiness() & waiter::kIn, 0u);
  ASSERT_TRUE(client->Send(Text("hello"), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  EXPECT_NE(server->Readiness() & waiter::kIn, 0u);
  EXPECT_EQ(server->ReceiveQueueBytes(), 5u);
  EXPECT_EQ(Text((*server->Receive(true))->data), "hello");
  auto got = server->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(Text((*got)->data), "hello");
  EXPECT_EQ((*got)->source, Of(1));
  EXPECT_EQ((*got)->destination, Of(2));
  EXPECT_EQ((*got)->source_port, client->local().port);
  EXPECT_EQ((*got)->ttl, 64);
  EXPECT_EQ((*got)->interface_index, b.eth0->index());
  // And back.
  ASSERT_TRUE(server->Send(Text("you too"), SocketAddress{(*got)->source, (*got)->source_port}));
  net.Run(kSecond);
  EXPECT_EQ(Text((*client->Receive())->data), "you too");
}

TEST_P(UdpTest, SegmentsAreCutWhereTheLinkDoesNot) {
  auto server = Bound(b, 53);
  auto client = New(a);
  DatagramOptions o = client->options();
  o.segment_size = 100;
  client->SetOptions(o);
  const std::string data = std::string(100, 'a') + std::string(100, 'b') + "c";
  ASSERT_TRUE(client->Send(Text(data), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  for (const std::string& s : {std::string(100, 'a'), std::string(100, 'b'), std::string("c")}) {
    auto got = server->Receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(Text((*got)->data), s);
  }
  EXPECT_FALSE(server->Receive());
  EXPECT_EQ(client->Send(Text(std::string(100 * kMaxUdpSegments + 1, 'x')), SocketAddress{Of(2), 53}).error().value(),
            EINVAL);
  // A segment must go through the path uncut, a datagram need not.
  EXPECT_EQ(
      client->Send(Text(std::string(4000, 'x')), SocketAddress{Of(2), 53}, {.segment_size = 2000}).error().value(),
      EMSGSIZE);
  EXPECT_TRUE(client->Send(Text(std::string(4000, 'x')), SocketAddress{Of(2), 53}, {.segment_size = 0}));
}

TEST_P(UdpTest, SegmentsStayTogetherOnALoopback) {
  auto server = Bound(a, 53);
  auto client = New(a);
  const std::string data(250, 'x');
  ASSERT_TRUE(client->Send(Text(data), SocketAddress{Lo(), 53}, {.segment_size = 100}));
  for (size_t size : {100u, 100u, 50u}) {
    auto got = server->Receive();
    ASSERT_TRUE(got);
    EXPECT_EQ((*got)->data.size(), size);
    EXPECT_EQ((*got)->offload.gso, GsoKind::kNone);
  }
  DatagramOptions o = server->options();
  o.join_segments = true;
  server->SetOptions(o);
  ASSERT_TRUE(client->Send(Text(data), SocketAddress{Lo(), 53}, {.segment_size = 100}));
  auto got = server->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(Text((*got)->data), data);
  EXPECT_EQ((*got)->offload.gso, GsoKind::kUdp);
  EXPECT_EQ((*got)->offload.segment_size, 100);
  EXPECT_FALSE(server->Receive());
}

TEST_P(UdpTest, StampsOfWhatIsSent) {
  auto server = Bound(b, 53);
  auto client = New(a);
  DatagramOptions o = client->options();
  o.stamps = StampBit(StampPlace::kSent) | StampBit(StampPlace::kScheduled);
  o.number_stamps = true;
  client->SetOptions(o);
  for (uint32_t key : {0u, 1u}) {
    ASSERT_TRUE(client->Send(Text("hello"), SocketAddress{Of(2), 53}));
    net.Run(kSecond);  // the neighbour is to be found first
    EXPECT_NE(client->Readiness() & waiter::kErr, 0u);
    for (StampPlace place : {StampPlace::kScheduled, StampPlace::kSent}) {
      auto stamp = client->TakeStamp();
      ASSERT_TRUE(stamp);
      EXPECT_EQ(stamp->place, place);
      EXPECT_EQ(stamp->key, key);
      EXPECT_EQ(stamp->frame.size(), 14u + (v4() ? 20u : 40u) + 8 + 5);
      EXPECT_EQ(stamp->source, Of(1));
      EXPECT_EQ(stamp->interface_index, a.eth0->index());
    }
    EXPECT_FALSE(client->TakeStamp());
  }
  EXPECT_EQ(client->Readiness() & waiter::kErr, 0u);
  // No more than so many wait.
  for (size_t i = 0; i < StampQueue::kMax; i++) ASSERT_TRUE(client->Send(Text("x"), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  size_t count = 0;
  while (client->TakeStamp()) count++;
  EXPECT_LE(count, StampQueue::kMax);
  EXPECT_GT(count, 0u);
}

TEST_P(UdpTest, ForeignAddressesAreForWhoAsks) {
  const Address foreign = v4() ? Address::Ipv4(203, 0, 113, 5) : A("2001:db8:1::5");
  auto e = New(a);
  EXPECT_EQ(e->Bind({foreign, 53}).error().value(), EADDRNOTAVAIL);
  DatagramOptions o = e->options();
  o.foreign.freebind = true;
  e->SetOptions(o);
  ASSERT_TRUE(e->Bind({foreign, 53}));
  auto sent = e->Send(Text("x"), SocketAddress{Of(2), 53});
  EXPECT_EQ(sent ? 0 : sent.error().value(), v4() ? ENETUNREACH : 0);
  o.foreign.transparent = true;
  e->SetOptions(o);
  auto server = Bound(b, 53);
  ASSERT_TRUE(e->Send(Text("y"), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  auto got = server->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->source, foreign);
}

TEST_P(UdpTest, PeekedDatagramsAreFoundByAnOffset) {
  auto server = Bound(b, 53);
  auto client = New(a);
  size_t offset = 0;
  EXPECT_EQ(server->PeekBehind(offset).error().value(), EAGAIN);
  for (const char* s : {"abc", "", "de"}) ASSERT_TRUE(client->Send(Text(s), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  auto peek = [&](size_t from) {
    offset = from;
    Result<PacketPtr> p = server->PeekBehind(offset);
    return p ? Text((*p)->data) : std::string(p.error().name());
  };
  EXPECT_EQ(peek(2), "abc");
  EXPECT_EQ(offset, 2u);
  EXPECT_EQ(peek(3), "");  // not seen yet
  EXPECT_EQ(peek(3), "de");
  EXPECT_EQ(peek(4), "de");
  EXPECT_EQ(offset, 1u);
  EXPECT_EQ(peek(5), "EAGAIN");
  EXPECT_EQ(Text((*server->Receive())->data), "abc");
}

TEST_P(UdpTest, EmptyAndLargestDatagrams) {
  auto server = Bound(b, 53);
  auto client = New(a);
  ASSERT_TRUE(client->Send(Buffer(), SocketAddress{Of(2), 53}));
  size_t largest = v4() ? 65507 : 65527;
  std::string big(largest, 'x');
  for (size_t i = 0; i < big.size(); i++) big[i] = static_cast<char>(i * 7 >> 2);
  Result<size_t> sent = client->Send(Text(big), SocketAddress{Of(2), 53});
  ASSERT_TRUE(sent) << sent.error().name();
  EXPECT_EQ(client->Send(Text(big + "y"), SocketAddress{Of(2), 53}).error().value(), EMSGSIZE);
  net.Run(kSecond);
  EXPECT_EQ((*server->Receive())->data.size(), 0u);
  auto got = server->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(Text((*got)->data), big);  // fragmented and put together
  EXPECT_GT(a.stack.ip_stats(GetParam()).fragments_created, 40u);
  EXPECT_EQ(b.stack.ip_stats(GetParam()).reassembly_ok, 1u);
}

TEST_P(UdpTest, WhatALinkHasNotTakenApartIsTakenApart) {
  auto server = Bound(b, 53);
  auto client = New(a);
  ASSERT_TRUE(client->Send(Text("who are you?"), SocketAddress{Of(2), 53}));
  net.Run(20 * kSecond);
  ASSERT_TRUE(server->Receive());
  std::string text(1400, 't');
  for (size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(i / 7);
  auto deliver = [&](uint16_t segment_size) {
    ASSERT_TRUE(client->Send(Text(text), SocketAddress{Of(2), 53}));
    PacketPtr frame = a.channel->Read();
    ASSERT_NE(frame, nullptr);
    frame->offload = {.checksum = ChecksumState::kVerified, .gso = GsoKind::kUdp, .segment_size = segment_size};
    b.channel->Inject(std::move(frame));
  };
  deliver(500);
  for (std::string expected : {text.substr(0, 500), text.substr(500, 500), text.substr(1000)}) {
    auto got = server->Receive();
    ASSERT_TRUE(got);
    EXPECT_EQ(Text((*got)->data), expected);
    EXPECT_EQ((*got)->source, Of(1));
    EXPECT_EQ((*got)->source_port, client->local().port);
  }
  deliver(1400);
  EXPECT_EQ(Text((*server->Receive())->data), text);
  // None, and too many.
  for (uint16_t nonsense : {0, 10}) {
    deliver(nonsense);
    EXPECT_EQ(server->Receive().error().value(), EAGAIN);
  }
}

TEST_P(UdpTest, LoopbackNeedsNoLinkAndNoChecksum) {
  net.Run(20 * kSecond);  // what is said of groups at the start
  auto server = Bound(a, 53);
  auto client = New(a);
  ASSERT_TRUE(client->Connect({Lo(), 53}));
  ASSERT_TRUE(client->Send(Text("in")));
  EXPECT_EQ(Text((*server->Receive())->data), "in");
  ASSERT_TRUE(client->Send(Text(std::string(60000, 'z'))));
  EXPECT_EQ((*server->Receive())->data.size(), 60000u);
  // Own address of the other interface too.
  ASSERT_TRUE(client->Send(Text("own"), SocketAddress{Of(1), 53}));
  EXPECT_EQ(Text((*server->Receive())->data), "own");
  EXPECT_EQ(a.channel->queued(), 0u);
}

TEST_P(UdpTest, ConnectedHearsOnlyItsPeerAndItsErrors) {
  auto e = Bound(a, 1000);
  auto peer = Bound(b, 2000);
  auto stranger = Bound(b, 2001);
  ASSERT_TRUE(e->Connect({Of(2), 2000}));
  EXPECT_EQ(e->local().address, Of(1));
  EXPECT_EQ(e->peer()->port, 2000);
  ASSERT_TRUE(peer->Send(Text("peer"), SocketAddress{Of(1), 1000}));
  ASSERT_TRUE(stranger->Send(Text("stranger"), SocketAddress{Of(1), 1000}));
  net.Run(kSecond);
  EXPECT_EQ(Text((*e->Receive())->data), "peer");
  EXPECT_EQ(e->Receive().error().value(), EAGAIN);
  // Nobody at the port: port unreachable comes back as ECONNREFUSED, once.
  peer->Close();
  ASSERT_TRUE(e->Send(Text("gone?")));
  net.Run(kSecond);
  EXPECT_NE(e->Readiness() & waiter::kErr, 0u);
  EXPECT_EQ(e->Send(Text("again")).error().value(), ECONNREFUSED);
  EXPECT_EQ(e->TakeError(), 0);
  ASSERT_TRUE(e->Disconnect());
  EXPECT_FALSE(e->peer());
  EXPECT_EQ(e->Send(Text("whom?")).error().value(), EDESTADDRREQ);
}

TEST_P(UdpTest, UnconnectedLearnsErrorsOnlyIfItAsks) {
  auto e = New(a);
  ASSERT_TRUE(e->Send(Text("x"), SocketAddress{Of(2), 99}));
  net.Run(kSecond);
  EXPECT_EQ(e->TakeError(), 0);
  DatagramOptions o = e->options();
  o.receive_errors = true;
  e->SetOptions(o);
  ASSERT_TRUE(e->Send(Text("x"), SocketAddress{Of(2), 99}));
  net.Run(kSecond);
  EXPECT_EQ(e->TakeError(), ECONNREFUSED);
  auto q = e->TakeQueuedError();
  ASSERT_TRUE(q);
  EXPECT_EQ(q->destination, (SocketAddress{Of(2), 99}));
  EXPECT_EQ(q->error.offender, Of(2));
  EXPECT_FALSE(e->TakeQueuedError());
}

TEST_P(UdpTest, AnAbsentNeighbourIsHostUnreachable) {
  auto e = New(a);
  Address absent = v4() ? A("10.0.0.77") : A("2001:db8::77");
  ASSERT_TRUE(e->Connect({absent, 5}));
  ASSERT_TRUE(e->Send(Text("x")));
  net.Run(10 * kSecond);
  EXPECT_EQ(e->TakeError(), EHOSTUNREACH);
}

TEST_P(UdpTest, BindErrors) {
  auto e = Bound(a, 53);
  EXPECT_EQ(e->Bind({Address::Any(GetParam()), 54}).error().value(), EINVAL);
  auto other = New(a);
  EXPECT_EQ(other->Bind({Address::Any(GetParam()), 53}).error().value(), EADDRINUSE);
  EXPECT_EQ(other->Bind({v4() ? A("10.9.9.9") : A("2001:db8::99"), 54}).error().value(), EADDRNOTAVAIL);
  EXPECT_EQ(other->Bind({v4() ? A("::1") : A("127.0.0.1"), 54}).error().value(), EAFNOSUPPORT);
  e->Close();
  EXPECT_TRUE(other->Bind({Address::Any(GetParam()), 53}));
  EXPECT_EQ(New(a)->Send(Text("x"), SocketAddress{v4() ? A("8.8.8.8") : A("2600::1"), 1}).error().value(), ENETUNREACH);
}

TEST_P(UdpTest, ReceiveQueueIsBoundedByBytes) {
  auto server = Bound(b, 53);
  DatagramOptions o = server->options();
  o.receive_buffer = 20000;
  server->SetOptions(o);
  auto client = New(a);
  for (int i = 0; i < 100; i++) ASSERT_TRUE(client->Send(Text(std::string(1000, 'a')), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  EXPECT_GT(server->dropped(), 50u);
  EXPECT_EQ(b.inet.udp->stats().receive_buffer_errors, server->dropped());
  size_t n = 0;
  while (server->Receive()) n++;
  // 64 were waiting for the neighbour at most.
  EXPECT_GT(n, 3u);
  EXPECT_LE(n, 10u);
  ASSERT_TRUE(client->Send(Text("room again"), SocketAddress{Of(2), 53}));
  net.Run(kSecond);
  EXPECT_TRUE(server->Receive());
}

TEST_P(UdpTest, ReusePortKeepsFlowsTogetherAndUsesAll) {
  std::vector<RefPtr<UdpEndpoint>> servers;
  for (int i = 0; i < 4; i++) {
    auto e = New(b);
    DatagramOptions o = e->options();
    o.reuse_port = true;
    e->SetOptions(o);
    ASSERT_TRUE(e->Bind({Address::Any(GetParam()), 53}));
    servers.push_back(e);
  }
  std::map<uint16_t, int> server_of_flow;
  for (int flow = 0; flow < 40; flow++) {
    auto client = New(a);
    for (int i = 0; i < 3; i++) ASSERT_TRUE(client->Send(Text("x"), SocketAddress{Of(2), 53}));
    net.Run(kSecond);
  }
  size_t used = 0;
  for (size_t i = 0; i < servers.size(); i++) {
    size_t n = 0;
    while (auto p = servers[i]->Receive()) {
      auto [it, fresh] = server_of_flow.emplace((*p)->source_port, i);
      EXPECT_EQ(it->second, static_cast<int>(i));
      n++;
    }
    used += n > 0;
  }
  EXPECT_EQ(server_of_flow.size(), 40u);
  EXPECT_EQ(used, 4u);
}

TEST_P(UdpTest, MulticastReachesMembersOnly) {
  Address group = v4() ? A("239.1.2.3") : A("ff05::123");
  auto member = Bound(b, 5000);
  auto other = Bound(b, 5001);
  ASSERT_TRUE(member->JoinGroup(group, b.eth0->index()));
  EXPECT_EQ(member->JoinGroup(group, b.eth0->index()).error().value(), EADDRINUSE);
  auto client = New(a);
  SocketAddress to{group, 5000, a.eth0->index()};
  ASSERT_TRUE(client->Send(Text("all"), to));
  net.Run(kSecond);
  auto got = member->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->destination, group);
  EXPECT_EQ((*got)->ttl, 1);
  EXPECT_FALSE(other->Receive());
  ASSERT_TRUE(member->LeaveGroup(group, b.eth0->index()));
  EXPECT_EQ(member->LeaveGroup(group, 0).error().value(), EADDRNOTAVAIL);
  ASSERT_TRUE(client->Send(Text("nobody"), to));
  net.Run(kSecond);
  EXPECT_FALSE(member->Receive());
}

TEST_P(UdpTest, MulticastOfSomeSourcesOnly) {
  const Address group = v4() ? Address::Ipv4(239, 1, 2, 3) : A("ff05::123");
  auto member = Bound(b, 53);
  auto client = New(a);
  const uint32_t eth0 = b.eth0->index();
  auto heard = [&] {
    EXPECT_TRUE(client->Send(Text("x"), SocketAddress{group, 53, a.eth0->index()}));
    net.Run(kSecond);
    return member->Receive().has_value();
  };
  using Change = Memberships::Change;
  auto change = [&](const Address& source, SourceMode mode, Change what) {
    Result<> r = member->ChangeSource(group, eth0, source, mode, what);
    return r ? 0 : r.error().value();
  };
  EXPECT_EQ(change(Of(1), SourceMode::kExclude, Change::kAdd), EINVAL);
  ASSERT_TRUE(member->JoinGroup(group, eth0));
  EXPECT_TRUE(heard());
  EXPECT_EQ(change(Of(1), SourceMode::kExclude, Change::kAdd), 0);
  EXPECT_FALSE(heard());
  ASSERT_TRUE(member->SetSourceFilter(group, eth0, {.mode = SourceMode::kInclude, .sources = {Of(2)}}));
  EXPECT_FALSE(heard());
  EXPECT_EQ(change(Of(1), SourceMode::kInclude, Change::kAdd), 0);
  EXPECT_TRUE(heard());
  EXPECT_EQ(change(Of(1), SourceMode::kInclude, Change::kRemove), 0);
  EXPECT_EQ(member->GetSourceFilter(group, eth0)->sources, std::vector<Address>{Of(2)});
  // The last one leaves.
  EXPECT_EQ(change(Of(2), SourceMode::kInclude, Change::kRemove), 0);
  EXPECT_EQ(member->LeaveGroup(group, eth0).error().value(), EADDRNOTAVAIL);
  EXPECT_FALSE(b.eth0->IsMember(group));
}

TEST_P(UdpTest, MulticastLoopsBackIfWanted) {
  Address group = v4() ? A("239.1.2.3") : A("ff05::123");
  auto member = Bound(a, 5000);
  ASSERT_TRUE(member->JoinGroup(group, a.eth0->index()));
  auto client = New(a);
  SocketAddress to{group, 5000, a.eth0->index()};
  ASSERT_TRUE(client->Send(Text("loop"), to));
  EXPECT_TRUE(member->Receive());
  DatagramOptions o = client->options();
  o.multicast_loop = false;
  client->SetOptions(o);
  ASSERT_TRUE(client->Send(Text("no loop"), to));
  EXPECT_FALSE(member->Receive());
}

TEST_F(UdpFixture, BroadcastNeedsTheOption) {
  auto listener = UdpEndpoint::Create(*b.inet.udp, Family::kIpv4);
  made.push_back(listener);
  ASSERT_TRUE(listener->Bind({A("0.0.0.0"), 67}));
  auto e = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
  made.push_back(e);
  for (const char* to : {"255.255.255.255", "10.0.0.255"}) {
    SocketAddress all{A(to), 67, a.eth0->index()};
    DatagramOptions o = e->options();
    o.broadcast = false;
    e->SetOptions(o);
    EXPECT_EQ(e->Send(Text("x"), all).error().value(), EACCES) << to;
    o.broadcast = true;
    e->SetOptions(o);
    ASSERT_TRUE(e->Send(Text("x"), all)) << to;
    net.Run(kSecond);
    auto got = listener->Receive();
    ASSERT_TRUE(got) << to;
    EXPECT_EQ((*got)->destination, A(to));
  }
}

TEST_F(UdpFixture, DualStackSpeaksIpv4ThroughMappedAddresses) {
  auto six = New(b, Family::kIpv6);
  ASSERT_TRUE(six->Bind({A("::"), 53}));
  auto four = New(a, Family::kIpv4);
  ASSERT_TRUE(four->Send(Text("x"), SocketAddress{A("10.0.0.2"), 53}));
  net.Run(kSecond);
  auto got = six->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->source, A("::ffff:10.0.0.1"));
  ASSERT_TRUE(six->Send(Text("y"), SocketAddress{(*got)->source, (*got)->source_port}));
  net.Run(kSecond);
  EXPECT_EQ(Text((*four->Receive())->data), "y");
  auto only = New(b, Family::kIpv6);
  DatagramOptions o = only->options();
  o.v6_only = true;
  only->SetOptions(o);
  EXPECT_EQ(only->Send(Text("z"), SocketAddress{A("::ffff:10.0.0.1"), 5}).error().value(), ENETUNREACH);
}

TEST_P(UdpTest, ShutdownEndsReading) {
  auto e = New(a);
  EXPECT_EQ(e->Shutdown(true, true).error().value(), ENOTCONN);
  ASSERT_TRUE(e->Connect({Lo(), 9}));
  ASSERT_TRUE(e->Shutdown(true, true));
  auto got = e->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(*got, nullptr);
  EXPECT_EQ(e->Send(Text("x")).error().value(), EPIPE);
  EXPECT_NE(e->Readiness() & waiter::kHup, 0u);
}

// What arrives is what was sent, whatever the network does to it.
TEST_P(UdpTest, NothingDamagedComesThrough) {
  Network bad(42, {.loss = 100, .duplication = 100, .damage = 300, .jitter = 3 * kMillisecond});
  Host& x = bad.AddHost();
  Host& y = bad.AddHost();
  auto server = UdpEndpoint::Create(*y.inet.udp, GetParam());
  DatagramOptions o = server->options();
  o.receive_buffer = 100 << 20;
  server->SetOptions(o);
  ASSERT_TRUE(server->Bind({Address::Any(GetParam()), 53}));
  auto client = UdpEndpoint::Create(*x.inet.udp, GetParam());
  size_t got = 0;
  for (int i = 0; i < 2000; i++) {
    // Self-describing: a length and a pattern of it.
    size_t n = 1 + bad.random.Below(4000);
    std::string text(n, static_cast<char>('a' + n % 26));
    (void)client->Send(Text(text), SocketAddress{Of(2), 53});
    bad.Run(5 * kMillisecond);
    while (auto p = server->Receive()) {
      std::string t = Text((*p)->data);
      ASSERT_FALSE(t.empty());
      ASSERT_EQ(t, std::string(t.size(), static_cast<char>('a' + t.size() % 26)));
      got++;
    }
  }
  EXPECT_GT(got, 200u);
  EXPECT_GT(y.inet.udp->stats().in_checksum_errors + y.stack.ip_stats(GetParam()).in_header_errors +
                y.stack.ip_stats(GetParam()).reassembly_fails,
            20u);
  server->Close();
  client->Close();
}

}  // namespace
}  // namespace redoubt::netstack
