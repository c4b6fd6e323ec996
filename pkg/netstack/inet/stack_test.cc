// The stack as a whole: interfaces, addresses, route look-up, and what a packet costs.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "pkg/netstack/testing/network.h"

namespace {
std::atomic<uint64_t> allocations{0};
}

// Not inlined: the compiler would see malloc meet delete.
[[gnu::noinline]] void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = std::malloc(size);
  if (p == nullptr) std::abort();
  return p;
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace redoubt::netstack {
namespace {

using testing::A;
using testing::Host;
using testing::Mac;
using testing::Network;
using testing::Text;

struct StackTest : ::testing::Test {
  Network net{8};
  Host& a = net.AddHost();
  int Error(const RouteRequest& r) {
    auto route = a.stack.FindRoute(r);
    return route ? 0 : route.error().value();
  }
};

TEST_F(StackTest, Interfaces) {
  auto add = [&](const char* name) {
    return a.stack.AddInterface(
        {.name = name, .link = std::make_unique<Channel>(Channel::Options{.address = Mac(50)})});
  };
  for (const char* bad : {"", "eth0/1", "a b", "..", "sixteencharacter", "x:1"})
    EXPECT_EQ(add(bad).error().value(), EINVAL) << bad;
  EXPECT_EQ(add("eth0").error().value(), EEXIST);
  auto eth1 = add("eth1");
  ASSERT_TRUE(eth1);
  EXPECT_EQ((*eth1)->index(), 3u);
  EXPECT_FALSE((*eth1)->up());
  EXPECT_EQ(a.stack.FindInterface("eth1"), *eth1);
  EXPECT_EQ(a.stack.FindInterface(3), *eth1);
  EXPECT_EQ(a.stack.Interfaces().size(), 3u);
  ASSERT_TRUE((*eth1)->AddAddress({.prefix = {A("10.5.0.1"), 24}}));
  (*eth1)->SetUp(true);
  EXPECT_EQ(Error({.remote = A("10.5.0.2")}), 0);
  ASSERT_TRUE(a.stack.RemoveInterface(3));
  EXPECT_EQ(a.stack.RemoveInterface(3).error().value(), ENODEV);
  EXPECT_EQ(a.stack.RemoveInterface(1).error().value(), EPERM);
  EXPECT_EQ(Error({.remote = A("10.5.0.2")}), ENETUNREACH);
  EXPECT_FALSE(a.stack.IsLocal(A("10.5.0.1")));
  (*eth1)->SetUp(true);  // removed for good
  EXPECT_FALSE((*eth1)->up());
  auto again = add("eth1");
  EXPECT_EQ((*again)->index(), 4u);  // indices are not used again
}

TEST_F(StackTest, Addresses) {
  auto add = [&](const char* address, uint8_t length) {
    auto r = a.eth0->AddAddress({.prefix = {A(address), length}});
    return r ? 0 : r.error().value();
  };
  EXPECT_EQ(add("10.0.0.1", 24), EEXIST);
  EXPECT_EQ(add("224.0.0.1", 24), EINVAL);
  EXPECT_EQ(add("0.0.0.0", 24), EINVAL);
  EXPECT_EQ(add("10.0.0.3", 33), EINVAL);
  EXPECT_EQ(add("2001:db8::5", 129), EINVAL);
  EXPECT_EQ(add("10.0.0.3", 24), 0);
  EXPECT_TRUE(a.stack.IsLocal(A("10.0.0.3")));
  EXPECT_TRUE(a.eth0->IsBroadcast(A("10.0.0.255")));
  EXPECT_EQ(a.eth0->RemoveAddress(A("10.0.0.4")).error().value(), EADDRNOTAVAIL);
  // The connected route survives its first address with the other as source.
  ASSERT_TRUE(a.eth0->RemoveAddress(A("10.0.0.1")));
  auto route = a.stack.FindRoute({.remote = A("10.0.0.9")});
  ASSERT_TRUE(route);
  EXPECT_EQ(route->local(), A("10.0.0.3"));
  ASSERT_TRUE(a.eth0->RemoveAddress(A("10.0.0.3")));
  EXPECT_EQ(Error({.remote = A("10.0.0.9")}), ENETUNREACH);
  EXPECT_EQ(a.eth0->SetMtu(67).error().value(), EINVAL);
  EXPECT_EQ(a.eth0->SetMtu(1000).error().value(), EINVAL);  // it has IPv6 addresses
  EXPECT_TRUE(a.eth0->SetMtu(1400));
  for (int i = 0; i < 300; i++)
    (void)a.eth0->AddAddress({.prefix = {Address::Ipv4(0x0a100000u + static_cast<uint32_t>(i)), 32}});
  EXPECT_EQ(a.eth0->Addresses().size(), Interface::kMaxAddresses);
}

TEST_F(StackTest, RouteLookUps) {
  ASSERT_TRUE(a.stack.routes().Add(
      {.destination = {A("0.0.0.0"), 0}, .gateway = A("10.0.0.254"), .interface_index = a.eth0->index()}));
  ASSERT_TRUE(a.stack.routes().Add({.destination = {A("10.66.0.0"), 16}, .type = RouteType::kUnreachable}));
  struct {
    RouteRequest request;
    int error;
    const char* local;
    const char* next_hop;
    bool loopback;
  } cases[] = {
      {{.remote = A("10.0.0.9")}, 0, "10.0.0.1", "10.0.0.9", false},
      {{.remote = A("8.8.8.8")}, 0, "10.0.0.1", "10.0.0.254", false},
      {{.remote = A("10.66.1.1")}, EHOSTUNREACH},
      {{.remote = A("127.0.0.1")}, 0, "127.0.0.1", "127.0.0.1", true},
      {{.remote = A("127.9.9.9")}, 0, "127.9.9.9", "127.9.9.9", true},
      {{.remote = A("0.0.0.0")}, 0, "127.0.0.1", "127.0.0.1", true},
      {{.remote = A("10.0.0.1")}, 0, "10.0.0.1", "10.0.0.1", true},
      {{.remote = A("10.0.0.9"), .local = A("10.0.0.2")}, EADDRNOTAVAIL},
      {{.remote = A("10.0.0.9"), .local = A("::1")}, EINVAL},
      {{.remote = A("10.0.0.9"), .interface_index = 9}, ENODEV},
      {{.remote = A("10.0.0.255")}, EACCES},
      {{.remote = A("255.255.255.255"), .broadcast_allowed = true}, 0, "10.0.0.1", "255.255.255.255", false},
      {{.remote = A("224.1.1.1")}, 0, "10.0.0.1", "224.1.1.1", false},
      {{.remote = A("2600::1")}, ENETUNREACH},
      {{.remote = A("2001:db8::77")}, 0, "2001:db8::1", "2001:db8::77", false},
      {{.remote = A("fe80::77"), .interface_index = 2}, 0, "fe80::ff:fe00:1", "fe80::77", false},
      {{.remote = A("ff02::1"), .interface_index = 2}, 0, "fe80::ff:fe00:1", "ff02::1", false},
      {{.remote = A("::1")}, 0, "::1", "::1", true},
  };
  for (auto& c : cases) {
    auto r = a.stack.FindRoute(c.request);
    ASSERT_EQ(r ? 0 : r.error().value(), c.error) << c.request.remote.ToString();
    if (c.error != 0) continue;
    EXPECT_EQ(r->local(), A(c.local)) << c.request.remote.ToString();
    EXPECT_EQ(r->next_hop(), A(c.next_hop));
    EXPECT_EQ(r->is_loopback(), c.loopback);
    EXPECT_EQ(r->gso_max(), c.loopback ? 65535u : 0u);
  }
  Route route = *a.stack.FindRoute({.remote = A("8.8.8.8")});
  EXPECT_FALSE(route.IsStale());
  ASSERT_TRUE(a.stack.routes().Remove({.destination = {A("0.0.0.0"), 0}}));
  EXPECT_TRUE(route.IsStale());
  a.eth0->SetUp(false);
  EXPECT_EQ(route.Write(Text("x"), {.protocol = 200}).error().value(), ENETDOWN);
  EXPECT_EQ(Error({.remote = A("10.0.0.9")}), ENETUNREACH);
  EXPECT_EQ(Route().Write(Text("x"), {}).error().value(), ENETUNREACH);
}

TEST_F(StackTest, ChangesAreTold) {
  VirtualClock clock;
  SeededRandom random(1);
  Stack stack(clock, random);
  RegisterInet(stack);
  std::vector<Stack::Change> changes;
  stack.SetChangeHook([&](Stack::Change c, Interface&, const InterfaceAddress*) { changes.push_back(c); });
  ASSERT_TRUE(AddLoopback(stack));
  using C = Stack::Change;
  EXPECT_EQ(changes, (std::vector{C::kLinkAdded, C::kAddressAdded, C::kAddressAdded, C::kLinkChanged}));
  stack.Close();
}

// On the steady path packets and chunks come from pools.
TEST_F(StackTest, NoAllocationPerPacket) {
  Host& b = net.AddHost();
  for (const char* to : {"127.0.0.1", "::1", "10.0.0.2"}) {
    Host& receiver = A(to) == A("10.0.0.2") ? b : a;
    auto server = UdpEndpoint::Create(*receiver.inet.udp, A(to).family());
    ASSERT_TRUE(server->Bind({Address::Any(A(to).family()), 9000}));
    auto client = UdpEndpoint::Create(*a.inet.udp, A(to).family());
    ASSERT_TRUE(client->Connect({A(to), 9000}));
    std::vector<std::byte> payload(1000);
    auto round = [&] {
      ASSERT_TRUE(client->Send(Buffer::CopyOf(payload, 64)));
      if (&receiver == &a) {
        ASSERT_TRUE(server->Receive());
      } else {
        while (a.channel->Read()) {
        }
      }
    };
    for (int i = 0; i < 100; i++) round();
    net.Run(kSecond);
    for (int i = 0; i < 100; i++) round();
    uint64_t before = allocations;
    for (int i = 0; i < 1000; i++) round();
    EXPECT_EQ(allocations - before, 0u) << to;
    server->Close();
    client->Close();
  }
}

// Several threads in one stack, with addresses and routes changing under them.
TEST_F(StackTest, ManyThreadsAtOnce) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> received{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; t++) {
    threads.emplace_back([&, t] {
      uint16_t port = static_cast<uint16_t>(7000 + t);
      auto server = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
      ASSERT_TRUE(server->Bind({A("127.0.0.1"), port}));
      auto client = UdpEndpoint::Create(*a.inet.udp, Family::kIpv4);
      ASSERT_TRUE(client->Connect({A("127.0.0.1"), port}));
      for (int i = 0; i < 3000; i++) {
        ASSERT_TRUE(client->Send(Text("x")));
        // Another thread may be the one that delivers it.
        while (!server->Receive()) std::this_thread::yield();
        received++;
      }
      server->Close();
      client->Close();
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; !stop; i++) {
      Address address = Address::Ipv4(0x0a200001u + static_cast<uint32_t>(i % 50));
      (void)a.eth0->AddAddress({.prefix = {address, 16}});
      (void)a.eth0->RemoveAddress(address);
      a.stack.timers().RunTimers(net.clock.Now());
    }
  });
  for (int t = 0; t < 3; t++) threads[static_cast<size_t>(t)].join();
  stop = true;
  threads.back().join();
  EXPECT_EQ(received, 9000u);
}

}  // namespace
}  // namespace redoubt::netstack
