// Private to netlink: NETLINK_ROUTE on a netstack, rtnetlink(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_ROUTE_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_ROUTE_H_

#include "pkg/netstack/stack/stack.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/netlink/protocol.h"

namespace redoubt::netlink {

// Links, addresses, routes, neighbours: told of, changed, and their changes told to groups. The rules of policy routing
// are the three fixed ones; the local table is made of the addresses.
class RouteProtocol final : public Protocol, public inetsock::NetworkObserver {
 public:
  explicit RouteProtocol(inetsock::Network& network) : network_(network), stack_(network.stack()) {
    network_.SetObserver(this);
  }
  ~RouteProtocol() override { network_.SetObserver(nullptr); }

  Result<> Handle(Request& request) override;
  uint32_t groups() const override;

  // inetsock::NetworkObserver
  void OnLink(bool gone, netstack::Interface& interface) override;
  void OnAddress(bool gone, netstack::Interface& interface, const netstack::InterfaceAddress& address) override;
  void OnRoute(netstack::RoutingTable::Change change, const netstack::RouteEntry& route) override;
  void OnNeighbour(bool gone, netstack::Interface& interface, const netstack::NeighbourInfo& neighbour) override;

 private:
  // route_links.cc
  Result<> GetLink(Request& r);
  Result<> SetLink(Request& r);
  Result<RefPtr<netstack::Interface>> LinkOf(Request& r, int index, const Attributes& attributes);
  // route_addresses.cc
  Result<> GetAddress(Request& r);
  Result<> NewAddress(Request& r);
  Result<> DeleteAddress(Request& r);
  // route_routes.cc
  Result<> GetRoute(Request& r);
  Result<> LookUp(Request& r);
  Result<> NewRoute(Request& r);
  Result<> DeleteRoute(Request& r);
  Result<netstack::RouteEntry> ParseRoute(Request& r);
  Result<> GetRule(Request& r);
  // route_neighbours.cc
  Result<> GetNeighbour(Request& r);
  Result<> ChangeNeighbour(Request& r, bool add);

  inetsock::Network& network_;
  netstack::Stack& stack_;
};

// AF_INET, AF_INET6, AF_UNSPEC and back.
netstack::Family ToFamily(uint8_t family);
uint8_t FromFamily(netstack::Family family);
// An attribute that is an address of `family`, or none if it is absent. EINVAL.
Result<netstack::Address> AddressOf(const Attributes& attributes, uint16_t type, netstack::Family family);
// Of a whole message each, with its header; `flags` of nlmsghdr.
struct Heading {
  uint16_t type = 0;
  uint16_t flags = 0;
  uint32_t sequence = 0;
  uint32_t port = 0;
};
inline Heading HeadingOf(const Request& r, uint16_t type) {
  return {.type = type,
          .flags = static_cast<uint16_t>(r.is_dump() ? NLM_F_MULTI : 0),
          .sequence = r.message.header.nlmsg_seq,
          .port = r.port};
}
void WriteLink(Writer& writer, const Heading& heading, netstack::Interface& interface);
void WriteAddress(Writer& writer, const Heading& heading, netstack::Interface& interface,
                  const netstack::InterfaceAddress& address);
void WriteRoute(Writer& writer, const Heading& heading, const netstack::RouteEntry& route);
// The local table's route to an address of this host.
void WriteLocalRoute(Writer& writer, const Heading& heading, const netstack::Interface& interface,
                     const netstack::Address& address);
void WriteNeighbour(Writer& writer, const Heading& heading, const netstack::Interface& interface,
                    const netstack::NeighbourInfo& neighbour);

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_ROUTE_H_
