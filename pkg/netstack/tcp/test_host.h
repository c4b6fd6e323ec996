// For tests: a stack with TCP, a loopback and, if asked for, a link without addresses to another such host, on a
// virtual clock.
#ifndef REDOUBT_PKG_NETSTACK_TCP_TEST_HOST_H_
#define REDOUBT_PKG_NETSTACK_TCP_TEST_HOST_H_

#include <gtest/gtest.h>
#include <linux/if_ether.h>

#include <memory>
#include <string>
#include <utility>

#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/inet/inet.h"
#include "pkg/netstack/link/channel.h"
#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/protocol.h"

namespace redoubt::netstack::tcp {

inline Buffer Bytes(std::string_view s) { return Buffer::CopyOf(std::as_bytes(std::span(s))); }
inline std::string Text(const Buffer& b) {
  std::string s(b.size(), '\0');
  b.CopyOut(0, std::as_writable_bytes(std::span(s)));
  return s;
}
// What is to be read, "EOF", or the error's name.
inline std::string ReadText(Endpoint& e, size_t n = 1 << 20) {
  Result<Buffer> r = e.Read(n);
  if (!r) return std::string(r.error().name());
  return r->empty() ? "EOF" : Text(*r);
}
inline int Errno_(const Result<>& r) { return r ? 0 : r.error().value(); }

struct TestHost {
  TestHost(Clock& clock, uint64_t seed, uint8_t number = 1) : random(seed), stack(clock, random) {
    inet = RegisterInet(stack);
    auto owned = std::make_unique<TcpProtocol>(stack);
    tcp = owned.get();
    stack.RegisterTransport(std::move(owned));
    lo = *AddLoopback(stack);
    auto link = std::make_unique<Channel>(Channel::Options{});
    channel = link.get();
    wire = *stack.AddInterface({.name = "wire", .link = std::move(link), .autoconfigure = false});
    (void)wire->AddAddress({.prefix = {Address::Ipv4(10, 0, 0, number), 24}});
    wire->SetUp(true);
  }
  ~TestHost() {
    lo.reset();
    wire.reset();
    stack.Close();
    // Timers hold their owners until they fire.
    stack.timers().RunTimers(kNever - 1, 1 << 20);
  }
  RefPtr<Endpoint> New(Family family = Family::kIpv4) { return Endpoint::Create(*tcp, family); }
  RefPtr<Endpoint> Listener(uint16_t port, uint32_t backlog = 16, Family family = Family::kIpv4) {
    RefPtr<Endpoint> e = New(family);
    EXPECT_TRUE(e->Bind({Address::Any(family), port}));
    EXPECT_TRUE(e->Listen(backlog));
    return e;
  }

  SeededRandom random;
  Stack stack;
  Inet inet;
  TcpProtocol* tcp;
  RefPtr<Interface> lo, wire;
  Channel* channel;
};

// What a host gets of a frame that another has sent: its bytes, and nothing of what it was when it was sent.
inline PacketPtr Arriving(PacketPtr sent) {
  PacketPtr fresh = NewPacket(std::move(sent->data));
  fresh->ethertype = ETH_P_IP;
  return fresh;
}

// Two hosts on a wire whose frames are in the test's hands, and a connection from one to the other.
struct ConnectedHosts {
  VirtualClock clock;
  TestHost a{clock, 1, 1};
  TestHost b{clock, 2, 2};
  RefPtr<Endpoint> client = a.New(), server;

  ConnectedHosts() {
    RefPtr<Endpoint> listener = b.Listener(80);
    (void)client->Connect({Address::Ipv4(10, 0, 0, 2), 80});
    for (int i = 0; i < 10; i++) {
      Carry(a, b);
      Carry(b, a);
      clock.Advance(kMillisecond);
    }
    Result<RefPtr<Endpoint>> accepted = listener->Accept();
    EXPECT_TRUE(accepted);
    if (accepted) server = *accepted;
    listener->Close();
  }
  ~ConnectedHosts() {
    client->Close(true);
    if (server) server->Close(true);
    for (Channel* c : {a.channel, b.channel}) {
      while (c->Read() != nullptr) {
      }
    }
  }
  void Timers() {
    for (TestHost* h : {&a, &b}) h->stack.timers().RunTimers(clock.Now());
  }
  // Moves the frames that wait in one host's link to the other's, one by one, but for every `drop`-th of all that were
  // (0: all arrive). Returns how many there were.
  size_t Carry(TestHost& from, TestHost& to, size_t drop = 0) {
    size_t carried = 0;
    for (; PacketPtr p = from.channel->Read(); carried++) {
      if (drop == 0 || ++droppable % drop != 0) to.channel->Inject(Arriving(std::move(p)));
    }
    return carried;
  }
  size_t droppable = 0;
};

inline SocketAddress Local(uint16_t port, Family family = Family::kIpv4) { return {Address::Loopback(family), port}; }

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_TEST_HOST_H_
