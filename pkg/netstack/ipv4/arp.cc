#include "pkg/netstack/ipv4/arp.h"

namespace redoubt::netstack {

using header::Arp;

void ArpProtocol::HandlePacket(Interface& interface, PacketPtr packet) {
  std::optional<Arp> arp = Arp::Parse(packet->data.PullUp(Arp::kSize));
  // On a link without addresses ARP makes no sense.
  if (!arp || (interface.link().caps() & kCapResolution) == 0) {
    malformed_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  LinkAddress own = interface.link_address();
  if (arp->sender_link == own) return;  // our own, come back
  if (!arp->sender.IsUnspecified() && interface.FindAddress(arp->sender)) {
    interface.ReportDuplicate(arp->sender, arp->sender_link);
    return;
  }
  bool ours = stack_.IsLocal(arp->target) && !arp->target.IsLoopback();
  NeighbourTable& neighbours = interface.neighbours(Family::kIpv4);
  if (arp->operation == Arp::kReply) {
    neighbours.HandleAdvertisement(arp->sender, arp->sender_link, arp->target_link == own, true, false);
    return;
  }
  if (!arp->sender.IsUnspecified()) neighbours.HandleSolicitation(arp->sender, arp->sender_link, ours);
  // A request for the sender's own address is an announcement.
  if (!ours || arp->target == arp->sender) return;
  Write(interface, arp->sender_link,
        {.operation = Arp::kReply,
         .sender_link = own,
         .sender = arp->target,
         .target_link = arp->sender_link,
         .target = arp->sender});
}

void ArpProtocol::Solicit(Interface& interface, const Address& target, const LinkAddress* link) {
  // The address of the target's network, or any: some stations answer no others.
  Address sender = Address::Any(Family::kIpv4);
  for (const InterfaceAddress& a : interface.Addresses()) {
    if (!a.prefix.address.is_ipv4()) continue;
    if (sender.IsUnspecified() || a.prefix.Contains(target)) sender = a.prefix.address;
    if (a.prefix.Contains(target)) break;
  }
  Write(interface, link != nullptr ? *link : kBroadcastLinkAddress,
        {.operation = Arp::kRequest, .sender_link = interface.link_address(), .sender = sender, .target = target});
}

void ArpProtocol::ProbeDuplicate(Interface& interface, const Address& target) {
  Write(interface, kBroadcastLinkAddress,
        {.operation = Arp::kRequest,
         .sender_link = interface.link_address(),
         .sender = Address::Any(Family::kIpv4),
         .target = target});
}

void ArpProtocol::Announce(Interface& interface, const Address& address) {
  Write(interface, kBroadcastLinkAddress,
        {.operation = Arp::kRequest, .sender_link = interface.link_address(), .sender = address, .target = address});
}

void ArpProtocol::Write(Interface& interface, const LinkAddress& to, const Arp& arp) {
  Buffer b = Buffer::Allocate(Arp::kSize, header::Ethernet::kSize);
  arp.Write(b.MutableView(0));
  PacketPtr packet = NewPacket(std::move(b));
  packet->ethertype = header::kEtherTypeArp;
  (void)interface.SendTo(to, std::move(packet));
}

}  // namespace redoubt::netstack
