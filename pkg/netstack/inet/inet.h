// Puts the protocols of the Internet into a stack: ARP, IPv4, IPv6, UDP, ping.
#ifndef REDOUBT_PKG_NETSTACK_INET_INET_H_
#define REDOUBT_PKG_NETSTACK_INET_INET_H_

#include "pkg/netstack/ipv4/ipv4.h"
#include "pkg/netstack/ipv6/ipv6.h"
#include "pkg/netstack/raw/raw.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/udp/udp.h"

namespace redoubt::netstack {

// Borrowed from the stack.
struct Inet {
  ArpProtocol* arp = nullptr;
  Ipv4Protocol* ipv4 = nullptr;
  Ipv6Protocol* ipv6 = nullptr;
  UdpProtocol* udp = nullptr;
  PingProtocol* ping4 = nullptr;
  PingProtocol* ping6 = nullptr;
};
// To be called on a new stack, before the first interface is added.
inline Inet RegisterInet(Stack& stack) {
  auto arp = std::make_unique<ArpProtocol>(stack);
  auto ipv4 = std::make_unique<Ipv4Protocol>(stack, *arp);
  auto ipv6 = std::make_unique<Ipv6Protocol>(stack);
  auto udp = std::make_unique<UdpProtocol>(stack);
  auto ping4 = std::make_unique<PingProtocol>(stack, Family::kIpv4);
  auto ping6 = std::make_unique<PingProtocol>(stack, Family::kIpv6);
  Inet inet{arp.get(), ipv4.get(), ipv6.get(), udp.get(), ping4.get(), ping6.get()};
  stack.RegisterHandler(std::move(arp));
  stack.RegisterNetwork(std::move(ipv4));
  stack.RegisterNetwork(std::move(ipv6));
  stack.RegisterTransport(std::move(udp));
  stack.RegisterTransport(std::move(ping4));
  stack.RegisterTransport(std::move(ping6));
  return inet;
}

// Adds the interface "lo" with 127.0.0.1/8 and ::1/128, up. As Stack::AddInterface.
Result<RefPtr<Interface>> AddLoopback(Stack& stack);

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_INET_INET_H_
