#include "pkg/netstack/raw/raw.h"

#include <gtest/gtest.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include <memory>

#include "pkg/bpf/bpf.h"
#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/testing/network.h"

namespace redoubt::netstack {
namespace {

using header::Icmp;
using testing::A;
using testing::Contents;
using testing::Host;
using testing::Mac;
using testing::Network;
using testing::Text;
using Vec = std::vector<std::byte>;

struct RawTest : ::testing::Test {
  Network net{6};
  Host& a = net.AddHost();
  Host& b = net.AddHost();
  RawTest() { net.Run(20 * kSecond); }

  static Vec Echo(uint8_t type, uint16_t id = 0x1234) {
    Vec m(Icmp::kSize + 24, std::byte{7});
    Icmp{.type = type, .rest = uint32_t{id} << 16 | 1}.Write(m);
    header::Store16(m, 2, static_cast<uint16_t>(~Sum(m)));
    return m;
  }
};

TEST_F(RawTest, Ipv4SeesHeadersAndTransportsSeeTheSame) {
  auto raw = RawEndpoint::Create(b.stack, Family::kIpv4, IPPROTO_UDP);
  auto server = UdpEndpoint::Create(*b.inet.udp, Family::kIpv4);
  ASSERT_TRUE(server->Bind({A("0.0.0.0"), 53}));
  auto client = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
  ASSERT_TRUE(client->Send(Text("payload"), SocketAddress{A("10.0.0.2"), 53}));
  net.Run(kSecond);
  EXPECT_TRUE(server->Receive());
  auto got = raw->Receive();
  ASSERT_TRUE(got);
  Vec bytes = Contents((*got)->data);
  ASSERT_EQ(bytes.size(), 20u + 8u + 7u);
  auto ip = header::Ipv4::Parse(bytes, bytes.size());
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->source, A("10.0.0.1"));
  EXPECT_EQ(ip->protocol, IPPROTO_UDP);
  // Bound to another address, or connected to another peer: nothing.
  ASSERT_TRUE(raw->Connect(SocketAddress{A("10.0.0.77")}));
  ASSERT_TRUE(client->Send(Text("payload"), SocketAddress{A("10.0.0.2"), 53}));
  net.Run(kSecond);
  EXPECT_EQ(raw->Receive().error().value(), EAGAIN);
  EXPECT_EQ(raw->Bind({A("10.7.7.7")}).error().value(), EADDRNOTAVAIL);
  raw->Close();
  server->Close();
  client->Close();
}

TEST_F(RawTest, AProtocolThatSomebodyReadsIsNotUnreachable) {
  auto sender = RawEndpoint::Create(a.stack, Family::kIpv4, 200);
  auto icmp = RawEndpoint::Create(a.stack, Family::kIpv4, IPPROTO_ICMP);
  auto reader = RawEndpoint::Create(b.stack, Family::kIpv4, 200);
  SocketAddress to{A("10.0.0.2")};
  EXPECT_EQ(sender->Send(Text("x")).error().value(), EDESTADDRREQ);
  ASSERT_TRUE(sender->Send(Text("hello"), to));
  net.Run(kSecond);
  auto got = reader->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->protocol, 200);
  EXPECT_FALSE(icmp->Receive());
  reader->Close();
  ASSERT_TRUE(sender->Send(Text("hello"), to));
  net.Run(kSecond);
  got = icmp->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ(header::Load8(Contents((*got)->data), 20), ICMP_DEST_UNREACH);
  sender->Close();
  icmp->Close();
}

TEST_F(RawTest, PingByRawSocketsWithFilter) {
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    bool v4 = family == Family::kIpv4;
    auto raw = RawEndpoint::Create(a.stack, family, v4 ? uint8_t{IPPROTO_ICMP} : uint8_t{IPPROTO_ICMPV6});
    SocketAddress to{v4 ? A("10.0.0.2") : A("2001:db8::2")};
    // Neighbour discovery comes in as well: only echo replies are wanted.
    std::array<uint32_t, 8> blocked;
    blocked.fill(~0u);
    uint8_t wanted = v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY;
    blocked[wanted / 32] &= ~(1u << wanted % 32);
    raw->SetFilter(blocked);
    ASSERT_TRUE(raw->Send(Buffer::CopyOf(Echo(v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST)), to));
    net.Run(kSecond);
    auto got = raw->Receive();
    ASSERT_TRUE(got);
    EXPECT_EQ((*got)->data.size(), 32u + (v4 ? 20u : 0u));
    EXPECT_EQ(header::Load8(Contents((*got)->data), v4 ? 20 : 0), wanted);
    EXPECT_FALSE(raw->Receive());
    raw->Close();
  }
}

TEST_F(RawTest, HeaderIncludedIsCompletedAndChecked) {
  auto raw = RawEndpoint::Create(a.stack, Family::kIpv4, IPPROTO_RAW);
  auto reader = RawEndpoint::Create(b.stack, Family::kIpv4, 201);
  Buffer packet =
      testing::Ipv4Packet({.ttl = 9, .protocol = 201, .source = A("0.0.0.0"), .destination = A("10.0.0.2")}, Vec(10));
  header::Store16(packet.MakeWritable(20), 2, 7);   // total length, wrong
  header::Store16(packet.MakeWritable(20), 10, 7);  // checksum, wrong
  ASSERT_TRUE(raw->Send(std::move(packet), SocketAddress{A("10.0.0.2")}));
  net.Run(kSecond);
  auto got = reader->Receive();
  ASSERT_TRUE(got);
  EXPECT_EQ((*got)->ttl, 9);
  EXPECT_EQ((*got)->source, A("10.0.0.1"));
  EXPECT_EQ((*got)->data.size(), 30u);
  EXPECT_EQ(raw->Send(Text("short"), SocketAddress{A("10.0.0.2")}).error().value(), EINVAL);
  Buffer big =
      testing::Ipv4Packet({.ttl = 9, .protocol = 201, .source = A("0.0.0.0"), .destination = A("10.0.0.2")}, Vec(2000));
  EXPECT_EQ(raw->Send(std::move(big), SocketAddress{A("10.0.0.2")}).error().value(), EMSGSIZE);
  raw->Close();
  reader->Close();
}

// UDP's filters are tested here too: what they see begins with the header, which stays.
TEST_F(RawTest, FiltersCutAndDrop) {
  auto program = [](std::vector<sock_filter> code) {
    return std::make_shared<const bpf::Program>(*bpf::Program::CreateForPackets(code));
  };
  const uint32_t payload = 8;  // behind UDP's header
  auto raw = RawEndpoint::Create(b.stack, Family::kIpv4, IPPROTO_UDP);
  auto server = UdpEndpoint::Create(*b.inet.udp, Family::kIpv4);
  ASSERT_TRUE(server->Bind({A("0.0.0.0"), 53}));
  // Datagrams that begin with a 'p', and of those four bytes.
  server->SetFilter(
      program({BPF_STMT(BPF_LD | BPF_B | BPF_ABS, payload), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'p', 0, 1),
               BPF_STMT(BPF_RET | BPF_K, payload + 4), BPF_STMT(BPF_RET | BPF_K, 0)}));
  raw->DatagramEndpoint::SetFilter(
      program({BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20 + payload), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'x', 0, 1),
               BPF_STMT(BPF_RET | BPF_K, 20), BPF_STMT(BPF_RET | BPF_K, 0)}));
  auto client = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
  for (const char* text : {"xx", "payload", "x"}) {
    ASSERT_TRUE(client->Send(Text(text), SocketAddress{A("10.0.0.2"), 53}));
  }
  net.Run(kSecond);
  EXPECT_EQ(Text((*server->Receive())->data), "payl");
  EXPECT_EQ(server->Receive().error().value(), EAGAIN);
  EXPECT_EQ((*raw->Receive())->data.size(), 20u);
  EXPECT_EQ((*raw->Receive())->data.size(), 20u);
  EXPECT_FALSE(raw->Receive());
  server->SetFilter(nullptr);
  ASSERT_TRUE(client->Send(Text("xx"), SocketAddress{A("10.0.0.2"), 53}));
  net.Run(kSecond);
  EXPECT_EQ(Text((*server->Receive())->data), "xx");
  // A program that leaves less than the header leaves no payload.
  server->SetFilter(program({BPF_STMT(BPF_RET | BPF_K, 1)}));
  ASSERT_TRUE(client->Send(Text("xx"), SocketAddress{A("10.0.0.2"), 53}));
  net.Run(kSecond);
  EXPECT_EQ(Text((*server->Receive())->data), "");
  raw->Close();
  server->Close();
  client->Close();
}

TEST_F(RawTest, PingSockets) {
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    bool v4 = family == Family::kIpv4;
    uint8_t request = v4 ? static_cast<uint8_t>(ICMP_ECHO) : ICMP6_ECHO_REQUEST;
    PingProtocol& protocol = v4 ? *a.inet.ping4 : *a.inet.ping6;
    auto ping = PingEndpoint::Create(protocol);
    auto other = PingEndpoint::Create(protocol);
    SocketAddress to{v4 ? A("10.0.0.2") : A("2001:db8::2")};
    EXPECT_EQ(ping->Send(Buffer::CopyOf(Echo(request))).error().value(), EDESTADDRREQ);
    EXPECT_EQ(ping->Send(Buffer::CopyOf(Echo(v4 ? ICMP_ECHOREPLY : ICMP6_ECHO_REPLY)), to).error().value(), EINVAL);
    EXPECT_EQ(ping->Send(Text("short"), to).error().value(), EINVAL);
    ASSERT_TRUE(ping->Bind({Address::Any(family), 77}));
    EXPECT_EQ(other->Bind({Address::Any(family), 77}).error().value(), EADDRINUSE);
    ASSERT_TRUE(other->Bind({Address::Any(family), 0}));
    EXPECT_NE(other->id(), 0);
    ASSERT_TRUE(ping->Send(Buffer::CopyOf(Echo(request)), to));
    net.Run(kSecond);
    auto got = ping->Receive();
    ASSERT_TRUE(got);
    Vec m = Contents((*got)->data);
    EXPECT_EQ(Icmp::Parse(m)->echo_id(), 77);
    EXPECT_EQ((*got)->source, to.address);
    EXPECT_EQ(m.size(), 32u);
    EXPECT_FALSE(other->Receive());
    // To nobody.
    ASSERT_TRUE(ping->Connect({v4 ? A("10.0.0.99") : A("2001:db8::99")}));
    ASSERT_TRUE(ping->Send(Buffer::CopyOf(Echo(request))));
    net.Run(10 * kSecond);
    EXPECT_EQ(ping->TakeError(), EHOSTUNREACH);
    ping->Close();
    EXPECT_TRUE(PingEndpoint::Create(protocol)->Bind({Address::Any(family), 77}));
    other->Close();
  }
}

}  // namespace
}  // namespace redoubt::netstack
