#include "pkg/sentry/socket/netlink/route.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace redoubt::netlink {

using netstack::Address;
using netstack::Family;

Family ToFamily(uint8_t family) {
  return family == AF_INET ? Family::kIpv4 : family == AF_INET6 ? Family::kIpv6 : Family::kNone;
}

uint8_t FromFamily(Family family) {
  return family == Family::kIpv4 ? AF_INET : family == Family::kIpv6 ? AF_INET6 : AF_UNSPEC;
}

Result<Address> AddressOf(const Attributes& attributes, uint16_t type, Family family) {
  if (!attributes.Has(type)) return Address();
  Address a = Address::FromBytes(attributes.Get(type));
  if (a.empty() || a.family() != family) return Err(EINVAL);
  return a;
}

uint32_t RouteProtocol::groups() const { return RTNLGRP_MAX; }
static_assert(RTNLGRP_MAX <= Port::kMaxGroup);

Result<> RouteProtocol::Handle(Request& r) {
  switch (r.message.header.nlmsg_type) {
    case RTM_GETLINK:
      return GetLink(r);
    case RTM_GETADDR:
      return GetAddress(r);
    case RTM_GETROUTE:
      return GetRoute(r);
    case RTM_GETNEIGH:
      return GetNeighbour(r);
    case RTM_GETRULE:
      return GetRule(r);
    default:
      break;
  }
  // Everything that changes something needs the capability, whether it is known or not, as in Linux. Of the four
  // requests of each kind the third asks.
  if ((r.message.header.nlmsg_type & 3) != 2 && (!r.may_change || network_.read_only())) return Err(EPERM);
  switch (r.message.header.nlmsg_type) {
    case RTM_SETLINK:
    case RTM_NEWLINK:
      return SetLink(r);
    case RTM_NEWADDR:
      return NewAddress(r);
    case RTM_DELADDR:
      return DeleteAddress(r);
    case RTM_NEWROUTE:
      return NewRoute(r);
    case RTM_DELROUTE:
      return DeleteRoute(r);
    case RTM_NEWNEIGH:
      return ChangeNeighbour(r, true);
    case RTM_DELNEIGH:
      return ChangeNeighbour(r, false);
    default:
      return r.Refuse(EOPNOTSUPP, "this request is not implemented");
  }
}

void RouteProtocol::OnLink(bool gone, netstack::Interface& interface) {
  if (!ports().HasMembers(RTNLGRP_LINK)) return;
  Writer writer;
  WriteLink(writer, {.type = static_cast<uint16_t>(gone ? RTM_DELLINK : RTM_NEWLINK)}, interface);
  ports().Multicast(RTNLGRP_LINK, writer.Take());
}

void RouteProtocol::OnAddress(bool gone, netstack::Interface& interface, const netstack::InterfaceAddress& address) {
  const Address& a = address.prefix.address;
  const uint32_t group = a.is_ipv4() ? RTNLGRP_IPV4_IFADDR : RTNLGRP_IPV6_IFADDR;
  if (ports().HasMembers(group)) {
    Writer writer;
    WriteAddress(writer, {.type = static_cast<uint16_t>(gone ? RTM_DELADDR : RTM_NEWADDR)}, interface, address);
    ports().Multicast(group, writer.Take());
  }
  const uint32_t routes = a.is_ipv4() ? RTNLGRP_IPV4_ROUTE : RTNLGRP_IPV6_ROUTE;
  if (ports().HasMembers(routes)) {
    Writer writer;
    WriteLocalRoute(writer, {.type = static_cast<uint16_t>(gone ? RTM_DELROUTE : RTM_NEWROUTE)}, interface, a);
    ports().Multicast(routes, writer.Take());
  }
}

void RouteProtocol::OnRoute(netstack::RoutingTable::Change change, const netstack::RouteEntry& route) {
  using Change = netstack::RoutingTable::Change;
  const uint32_t group = route.destination.address.is_ipv4() ? RTNLGRP_IPV4_ROUTE : RTNLGRP_IPV6_ROUTE;
  if (!ports().HasMembers(group)) return;
  Writer writer;
  WriteRoute(writer,
             {.type = static_cast<uint16_t>(change == Change::kRemoved ? RTM_DELROUTE : RTM_NEWROUTE),
              .flags = static_cast<uint16_t>(change == Change::kReplaced ? NLM_F_REPLACE : 0)},
             route);
  ports().Multicast(group, writer.Take());
}

void RouteProtocol::OnNeighbour(bool gone, netstack::Interface& interface, const netstack::NeighbourInfo& neighbour) {
  if (!ports().HasMembers(RTNLGRP_NEIGH)) return;
  Writer writer;
  WriteNeighbour(writer, {.type = static_cast<uint16_t>(gone ? RTM_DELNEIGH : RTM_NEWNEIGH)}, interface, neighbour);
  ports().Multicast(RTNLGRP_NEIGH, writer.Take());
}

}  // namespace redoubt::netlink
