#include <arpa/inet.h>
#include <fmt/core.h>
#include <linux/if_addr.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "runsc/sandbox/host_network.h"
#include "runsc/sandbox/ipv6_switch.h"
#include "runsc/sandbox/rtnetlink.h"

namespace redoubt::sandbox {
namespace {

using netstack::Address;
using specutils::Expected;
using specutils::NetworkAddress;
using specutils::NetworkConfig;
using specutils::NetworkLink;

// A super-segment takes 64 KiB of a socket's buffer and as much of overhead; the default holds three.
constexpr int kBufferBytes = 8 << 20;

unsigned char FamilyOf(const Address& a) { return a.is_ipv4() ? AF_INET : AF_INET6; }

RtRequest AddressRequest(uint16_t type, uint16_t flags, const NetworkLink& link, const NetworkAddress& a) {
  ifaddrmsg header{};
  header.ifa_family = FamilyOf(a.prefix.address);
  header.ifa_prefixlen = a.prefix.length;
  header.ifa_index = link.index;
  RtRequest r(type, flags, header);
  r.Attribute(IFA_LOCAL, a.prefix.address.bytes());
  r.Attribute(IFA_ADDRESS, a.prefix.address.bytes());
  if (type == RTM_NEWADDR) {
    ifa_cacheinfo times{};
    times.ifa_prefered = a.preferred;
    times.ifa_valid = a.valid;
    r.Attribute(IFA_CACHEINFO, std::as_bytes(std::span(&times, 1)));
    // The address was in use a moment ago.
    r.Attribute(IFA_FLAGS, uint32_t{a.prefix.address.is_ipv6() ? IFA_F_NODAD : 0u});
    Address broadcast = a.prefix.Broadcast();
    if (!broadcast.empty()) r.Attribute(IFA_BROADCAST, broadcast.bytes());
  }
  return r;
}

RtRequest RouteRequest(const netstack::RouteEntry& e) {
  rtmsg header{};
  header.rtm_family = FamilyOf(e.destination.address);
  header.rtm_dst_len = e.destination.length;
  header.rtm_table = RT_TABLE_MAIN;
  header.rtm_protocol = e.protocol;
  header.rtm_scope = e.gateway.empty() && e.destination.address.is_ipv4() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  header.rtm_type = static_cast<unsigned char>(e.type);
  RtRequest r(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, header);
  if (e.destination.length != 0) r.Attribute(RTA_DST, e.destination.address.bytes());
  if (!e.gateway.empty()) r.Attribute(RTA_GATEWAY, e.gateway.bytes());
  if (e.interface_index != 0) r.Attribute(RTA_OIF, e.interface_index);
  if (e.metric != 0) r.Attribute(RTA_PRIORITY, e.metric);
  if (!e.source.empty()) r.Attribute(RTA_PREFSRC, e.source.bytes());
  if (e.mtu != 0) {
    struct {
      rtattr header{.rta_len = sizeof(rtattr) + sizeof(uint32_t), .rta_type = RTAX_MTU};
      uint32_t mtu;
    } metric{.mtu = e.mtu};
    r.Attribute(RTA_METRICS, std::as_bytes(std::span(&metric, 1)));
  }
  return r;
}

std::unexpected<std::string> Failed(const std::string& what, int error) {
  return std::unexpected(fmt::format("{}: {}", what, std::strerror(error)));
}

}  // namespace

Expected<UniqueFd> OpenPacketSocket(const NetworkLink& link) {
  const std::string what = fmt::format("a packet socket on {}", link.name);
  // Protocol 0: nothing of other interfaces comes in before it is bound.
  UniqueFd fd(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return Failed(what, errno);
  const int on = 1;
  auto set = [&](int level, int option, int value) {
    return setsockopt(fd.get(), level, option, &value, sizeof(value)) == 0;
  };
  if (!set(SOL_PACKET, PACKET_IGNORE_OUTGOING, on)) return Failed(what + ": PACKET_IGNORE_OUTGOING", errno);
  // Without them frames would come with checksums that nobody has made, and longer than the link allows.
  if (!set(SOL_PACKET, PACKET_VNET_HDR, on)) return Failed(what + ": PACKET_VNET_HDR", errno);
  // As far as net.core.[rw]mem_max allow if the caller has not CAP_NET_ADMIN for the machine.
  if (!set(SOL_SOCKET, SO_RCVBUFFORCE, kBufferBytes)) (void)set(SOL_SOCKET, SO_RCVBUF, kBufferBytes);
  if (!set(SOL_SOCKET, SO_SNDBUFFORCE, kBufferBytes)) (void)set(SOL_SOCKET, SO_SNDBUF, kBufferBytes);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(link.index);
  // SAFETY: every socket address may be passed as a sockaddr with its size.
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return Failed(what, errno);
  return fd;
}

Expected<void> RemoveAddresses(const NetworkConfig& config) {
  Expected<Rtnetlink> netlink = Rtnetlink::Open();
  if (!netlink) return std::unexpected(netlink.error());
  for (const NetworkLink& link : config.links) {
    for (const NetworkAddress& a : link.addresses) {
      if (!a.prefix.address.is_ipv4()) continue;
      // A secondary address goes with its primary one.
      int error = netlink->Do(AddressRequest(RTM_DELADDR, 0, link, a));
      if (error != 0 && error != EADDRNOTAVAIL) {
        return Failed(fmt::format("cannot take {} from {}", a.prefix.ToString(), link.name), error);
      }
    }
    if (!link.ipv6) continue;
    if (int error = SetIpv6(link.name, false); error != 0) {
      return Failed(fmt::format("cannot take IPv6 from {}", link.name), error);
    }
  }
  return {};
}

Expected<void> RestoreAddresses(const NetworkConfig& config) {
  Expected<Rtnetlink> netlink = Rtnetlink::Open();
  if (!netlink) return std::unexpected(netlink.error());
  Expected<void> result;
  auto note = [&](const std::string& what, int error) {
    if (error != 0 && error != EEXIST && result) result = Failed(what, error);
  };
  for (const NetworkLink& link : config.links) {
    if (link.ipv6) note(fmt::format("cannot give IPv6 back to {}", link.name), SetIpv6(link.name, true));
    for (const NetworkAddress& a : link.addresses) {
      note(fmt::format("cannot give {} back to {}", a.prefix.ToString(), link.name),
           netlink->Do(AddressRequest(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, link, a)));
    }
  }
  // Networks first: gateways must be in one.
  for (bool through_gateway : {false, true}) {
    for (const netstack::RouteEntry& r : config.routes) {
      if (r.gateway.empty() == through_gateway) continue;
      note(fmt::format("cannot give back the route to {}", r.destination.ToString()), netlink->Do(RouteRequest(r)));
    }
  }
  return result;
}

}  // namespace redoubt::sandbox
