// Neighbour discovery (RFC 4861): messages in and out. States are NeighbourTable's, routers and prefixes Slaac's.
#include <netinet/icmp6.h>

#include "pkg/netstack/ipv6/ipv6.h"

namespace redoubt::netstack {

using header::NdpNeighbour;

namespace {
// Of messages with their options; what is longer is no neighbour discovery of any use.
constexpr size_t kMaxMessage = 1280;
}  // namespace

Address Ipv6Protocol::LinkLocalOf(const Interface& interface) const {
  for (const InterfaceAddress& a : interface.Addresses()) {
    if (a.prefix.address.IsLinkLocal() && a.prefix.address.is_ipv6() && a.state != AddressState::kTentative &&
        a.state != AddressState::kDuplicate) {
      return a.prefix.address;
    }
  }
  return Address::Any(Family::kIpv6);
}

void Ipv6Protocol::HandleNdp(Interface& interface, const Packet& packet, uint8_t type) {
  std::array<std::byte, kMaxMessage> copy;
  size_t n = packet.data.CopyOut(packet.transport_offset, copy);
  header::Bytes message = header::Bytes(copy).first(n);
  auto malformed = [this] { icmp_stats_.in_malformed_neighbour_messages.fetch_add(1, std::memory_order_relaxed); };
  // Sections 6.1 and 7.1: a hop limit of 255 proves that no router has forwarded it.
  if (packet.ttl != 255 || packet.transport_length() > kMaxMessage) return malformed();
  if (type == ND_ROUTER_SOLICIT) return;  // we are no router that advertises
  if (type == ND_ROUTER_ADVERT) {
    std::optional<header::NdpRouterAdvertisement> ra = header::NdpRouterAdvertisement::Parse(message);
    if (!ra || !packet.source.IsLinkLocal()) return malformed();
    slaac_->HandleAdvertisement(interface, packet.source, *ra);
    return;
  }
  std::optional<NdpNeighbour> neighbour = NdpNeighbour::Parse(message);
  if (!neighbour) return malformed();
  if (type == ND_NEIGHBOR_SOLICIT) {
    // Duplicate detection comes from nowhere, goes to the solicited-node group and names no link address.
    if (packet.source.IsUnspecified() &&
        (packet.destination != SolicitedNodeAddress(neighbour->target) || neighbour->options.source_link)) {
      return malformed();
    }
    HandleSolicitation(interface, packet, *neighbour);
  } else {
    if (packet.destination.IsMulticast() && neighbour->solicited) return malformed();
    HandleAdvertisement(interface, packet, *neighbour);
  }
}

void Ipv6Protocol::HandleSolicitation(Interface& interface, const Packet& packet, const NdpNeighbour& message) {
  std::optional<InterfaceAddress> own = interface.FindAddress(message.target);
  if (!own || own->state == AddressState::kDuplicate) return;
  bool detection = packet.source.IsUnspecified();
  if (own->state == AddressState::kTentative) {
    // Somebody else wants it too, unless it is our own probe, come back (RFC 7527).
    bool ours = (message.options.has_nonce && message.options.nonce == nonce_) ||
                packet.link_source == interface.link_address();
    if (detection && !ours) interface.ReportDuplicate(message.target, packet.link_source);
    return;
  }
  if (!detection && message.options.source_link) {
    interface.neighbours(Family::kIpv6).HandleSolicitation(packet.source, *message.options.source_link, true);
  }
  NdpNeighbour reply{.type = ND_NEIGHBOR_ADVERT,
                     .router = stack_.forwarding(Family::kIpv6),
                     .solicited = !detection,
                     .override = true,
                     .target = message.target};
  std::array<std::byte, 40> out;
  size_t size = reply.Write(out, interface.link_address());
  WriteIcmp(interface, message.target, detection ? kAllNodesV6 : packet.source, std::span(out).first(size), 255, false,
            nullptr);
}

void Ipv6Protocol::HandleAdvertisement(Interface& interface, const Packet& packet, const NdpNeighbour& message) {
  if (interface.FindAddress(message.target)) {
    if (packet.link_source != interface.link_address()) interface.ReportDuplicate(message.target, packet.link_source);
    return;
  }
  interface.neighbours(Family::kIpv6)
      .HandleAdvertisement(message.target, message.options.target_link, message.solicited, message.override,
                           message.router);
}

void Ipv6Protocol::Solicit(Interface& interface, const Address& target, const LinkAddress* link) {
  // A source of the target's scope, so that the answer finds its way.
  Address source = LinkLocalOf(interface);
  if (!target.IsLinkLocal()) {
    for (const InterfaceAddress& a : interface.Addresses()) {
      if (a.prefix.address.is_ipv6() && a.prefix.Contains(target) && a.state != AddressState::kTentative &&
          a.state != AddressState::kDuplicate) {
        source = a.prefix.address;
        break;
      }
    }
  }
  if (source.IsUnspecified()) return;  // nothing to be answered at
  std::array<std::byte, 40> out;
  size_t size = NdpNeighbour{.type = ND_NEIGHBOR_SOLICIT, .target = target}.Write(out, interface.link_address());
  WriteIcmp(interface, source, link != nullptr ? target : SolicitedNodeAddress(target), std::span(out).first(size), 255,
            false, link);
}

void Ipv6Protocol::ProbeDuplicate(Interface& interface, const Address& target) {
  std::array<std::byte, 40> out;
  size_t size = NdpNeighbour{.type = ND_NEIGHBOR_SOLICIT, .target = target}.Write(out, std::nullopt, nonce_);
  WriteIcmp(interface, Address::Any(Family::kIpv6), SolicitedNodeAddress(target), std::span(out).first(size), 255,
            false, nullptr);
}

void Ipv6Protocol::Announce(Interface& interface, const Address& address) {
  std::array<std::byte, 40> out;
  size_t size = NdpNeighbour{.type = ND_NEIGHBOR_ADVERT, .override = true, .target = address}.Write(
      out, interface.link_address());
  WriteIcmp(interface, address, kAllNodesV6, std::span(out).first(size), 255, false, nullptr);
}

}  // namespace redoubt::netstack
