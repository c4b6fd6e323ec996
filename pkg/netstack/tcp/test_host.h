// For tests: a stack with TCP, a loopback and, if asked for, a link without addresses to another such host, on a
// virtual clock.
#ifndef REDOUBT_PKG_NETSTACK_TCP_TEST_HOST_H_
#define REDOUBT_PKG_NETSTACK_TCP_TEST_HOST_H_

#include <gtest/gtest.h>
#include <linux/if_ether.h>

#include <memory>
#include <string>

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

inline SocketAddress Local(uint16_t port, Family family = Family::kIpv4) { return {Address::Loopback(family), port}; }

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_TEST_HOST_H_
