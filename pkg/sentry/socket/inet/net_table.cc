#include "pkg/sentry/socket/inet/net_table.h"

#include <fmt/core.h>
#include <net/route.h>
#include <netinet/in.h>

#include <cstring>

#include "pkg/sentry/socket/socket.h"

namespace redoubt::inetsock {

namespace {

using netstack::Address;
using netstack::Family;

// Words as a little-endian machine reads them from the network's bytes, of the table's own IP version.
std::string Words(const Address& address, Family family) {
  Address a = address.empty() ? Address::Any(family) : address;
  if (family == Family::kIpv6 && a.is_ipv4()) a = a.ToV4Mapped();
  std::string s;
  for (size_t i = 0; i < a.size(); i += 4)
    s += fmt::format("{:02X}{:02X}{:02X}{:02X}", a[i + 3], a[i + 2], a[i + 1], a[i]);
  return s;
}

template <typename SocketAddress>
std::string Name(const SocketAddress& a, Family family) {
  return fmt::format("{}:{:04X}", Words(a.address, family), a.port);
}

int FamilyNumber(Family family) { return family == Family::kIpv4 ? AF_INET : AF_INET6; }

std::string TcpLine(int line, Family family, const ListedSocket& s) {
  return fmt::format(
      "{:4}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 1 0000000000000000 0 0 0 10 -1\n", line,
      Name(s.local, family), Name(s.peer, family), s.state, s.send_queue, s.receive_queue, s.uid, 0, s.ino);
}

std::string UdpLine(int line, Family family, const ListedSocket& s, uint64_t dropped) {
  return fmt::format("{:5}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 {}\n", line,
                     Name(s.local, family), Name(s.peer, family), s.state, s.send_queue, s.receive_queue, s.uid, 0,
                     s.ino, dropped);
}

std::string TcpTable(Network& network, Family family) {
  std::string out;
  int line = 0;
  const socket::SocketOwners owners(FamilyNumber(family));
  for (const RefPtr<netstack::tcp::Endpoint>& e : network.tcp().Endpoints()) {
    if (e->family() != family) continue;
    const socket::SocketOwner owner = owners.Of(e.get());
    out += TcpLine(line++, family,
                   {.local = e->local(),
                    .peer = e->peer().value_or(netstack::SocketAddress{}),
                    .state = static_cast<uint8_t>(e->state()),
                    .receive_queue = static_cast<uint32_t>(e->Readable()),
                    .send_queue = static_cast<uint32_t>(e->Unacknowledged()),
                    .ino = owner.ino,
                    .uid = owner.uid});
  }
  for (const ListedSocket& s : network.OtherSockets(family, IPPROTO_TCP)) out += TcpLine(line++, family, s);
  return out;
}

std::string UdpTable(Network& network, Family family) {
  std::string out;
  int line = 0;
  const socket::SocketOwners owners(FamilyNumber(family));
  for (const RefPtr<netstack::UdpEndpoint>& e : network.udp().Endpoints()) {
    if (e->family() != family) continue;
    const auto peer = e->peer();
    const socket::SocketOwner owner = owners.Of(static_cast<const netstack::DatagramEndpoint*>(e.get()));
    out += UdpLine(line++, family,
                   {.local = e->local(),
                    .peer = peer.value_or(netstack::SocketAddress{}),
                    .state = static_cast<uint8_t>(peer ? 1 : 7),
                    .receive_queue = static_cast<uint32_t>(e->ReceiveQueueBytes()),
                    .ino = owner.ino,
                    .uid = owner.uid},
                   e->dropped());
  }
  for (const ListedSocket& s : network.OtherSockets(family, IPPROTO_UDP)) out += UdpLine(line++, family, s, 0);
  return out;
}

std::string DeviceTable(netstack::Stack& stack) {
  std::string out;
  for (const RefPtr<netstack::Interface>& i : stack.Interfaces()) {
    const netstack::InterfaceStats& s = i->stats();
    out += fmt::format("{:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}\n",
                       i->name(), s.rx_bytes.load(), s.rx_packets.load(), s.rx_errors.load(), s.rx_dropped.load(), 0, 0,
                       0, s.rx_multicast.load(), s.tx_bytes.load(), s.tx_packets.load(), s.tx_errors.load(),
                       s.tx_dropped.load(), 0, 0, 0, 0);
  }
  return out;
}

std::string Ipv6Addresses(netstack::Stack& stack) {
  constexpr int kPermanent = 0x80;                     // IFA_F_PERMANENT
  constexpr int kHostScope = 0x10, kLinkScope = 0x20;  // of linux/ipv6.h's address types
  std::string out;
  for (const RefPtr<netstack::Interface>& i : stack.Interfaces()) {
    for (const netstack::InterfaceAddress& a : i->Addresses()) {
      const Address& address = a.prefix.address;
      if (!address.is_ipv6()) continue;
      for (size_t n = 0; n < address.size(); ++n) out += fmt::format("{:02x}", address[n]);
      const int scope = address.IsLoopback() ? kHostScope : address.IsLinkLocal() ? kLinkScope : 0;
      out += fmt::format(" {:02x} {:02x} {:02x} {:02x} {:>8}\n", i->index(), a.prefix.length, scope,
                         a.valid_until == netstack::kNever ? kPermanent : 0, i->name());
    }
  }
  return out;
}

// The main table, which has no routes of the loopback.
std::string RouteTable(netstack::Stack& stack) {
  std::string out;
  for (const netstack::RouteEntry& r : stack.routes().Entries()) {
    RefPtr<netstack::Interface> i = stack.FindInterface(r.interface_index);
    if (!r.destination.address.is_ipv4() || !i || i->is_loopback()) continue;
    const uint8_t bits = r.destination.length;
    const int flags = RTF_UP | (r.gateway.empty() ? 0 : RTF_GATEWAY) | (bits == 32 ? RTF_HOST : 0);
    const Address mask = Address::Ipv4(bits == 0 ? 0u : ~uint32_t{0} << (32 - bits));
    out += fmt::format(
        "{:<127}\n", fmt::format("{}\t{}\t{}\t{:04X}\t0\t0\t{}\t{}\t{}\t0\t0", i->name(),
                                 Words(r.destination.Network(), Family::kIpv4), Words(r.gateway, Family::kIpv4), flags,
                                 r.metric, Words(mask, Family::kIpv4), r.mtu));
  }
  return out;
}

}  // namespace

std::string NetTable(Network& network, std::string_view name) {
  if (name == "tcp") return TcpTable(network, Family::kIpv4);
  if (name == "tcp6") return TcpTable(network, Family::kIpv6);
  if (name == "udp") return UdpTable(network, Family::kIpv4);
  if (name == "udp6") return UdpTable(network, Family::kIpv6);
  if (name == "dev") return DeviceTable(network.stack());
  if (name == "if_inet6") return Ipv6Addresses(network.stack());
  if (name == "route") return RouteTable(network.stack());
  return {};
}

}  // namespace redoubt::inetsock
