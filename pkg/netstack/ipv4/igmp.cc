// IGMP for hosts (RFC 2236, RFC 3376), versions 1 to 3.
#include <netinet/in.h>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/ipv4/ipv4.h"

namespace redoubt::netstack {

using header::Igmp;

namespace {
constexpr Address kAllIgmpV3Routers = Address::Ipv4(224, 0, 0, 22);
}

void Ipv4Protocol::HandleIgmp(Interface& interface, const Packet& packet) {
  std::array<std::byte, Igmp::kSize> bytes;
  if (packet.transport_length() < Igmp::kSize || Sum(packet.data, packet.transport_offset) != 0xffff) return;
  packet.data.CopyOut(packet.transport_offset, bytes);
  Igmp igmp = *Igmp::Parse(bytes);
  switch (igmp.type) {
    case Igmp::kQuery: {
      // RFC 3376 section 7.1: 8 bytes are version 1 or 2, by the response code; 12 and more version 3.
      if (!igmp.group.IsUnspecified() && !igmp.group.IsMulticast()) return;
      if (packet.transport_length() >= 12) {
        groups_->Query(interface.index(), GroupReporter::Version::k3, igmp.group,
                       header::DecodeIgmpV3Code(igmp.max_response) * (kSecond / 10));
      } else if (packet.transport_length() == Igmp::kSize) {
        bool v1 = igmp.max_response == 0;
        groups_->Query(interface.index(), v1 ? GroupReporter::Version::k1 : GroupReporter::Version::k2, igmp.group,
                       v1 ? 10 * kSecond : igmp.max_response * (kSecond / 10));
      }
      break;
    }
    case Igmp::kReportV1:
    case Igmp::kReportV2:
      groups_->HeardReport(interface.index(), igmp.group);
      break;
    default:
      break;
  }
}

void Ipv4Protocol::SendReport(uint32_t interface_index, GroupReporter::Version version, const Address& group,
                              GroupReporter::Record record) {
  if (version == GroupReporter::Version::k3) {
    // One record without sources: RFC 3376 section 4.2.
    std::array<std::byte, 16> message{};
    header::Store8(message, 0, Igmp::kReportV3);
    header::Store16(message, 6, 1);
    header::Store8(message, 8, static_cast<uint8_t>(record));
    header::StoreAddress(message, 12, group);
    header::Store16(message, 2, static_cast<uint16_t>(~Sum(message)));
    WriteIgmp(interface_index, kAllIgmpV3Routers, message);
    return;
  }
  std::array<std::byte, Igmp::kSize> message;
  Igmp{.type = version == GroupReporter::Version::k1 ? Igmp::kReportV1 : Igmp::kReportV2, .group = group}.Write(
      message);
  header::Store16(message, 2, static_cast<uint16_t>(~Sum(message)));
  WriteIgmp(interface_index, group, message);
}

void Ipv4Protocol::SendLeave(uint32_t interface_index, const Address& group) {
  std::array<std::byte, Igmp::kSize> message;
  Igmp{.type = Igmp::kLeave, .group = group}.Write(message);
  header::Store16(message, 2, static_cast<uint16_t>(~Sum(message)));
  WriteIgmp(interface_index, kAllRoutersV4, message);
}

void Ipv4Protocol::WriteIgmp(uint32_t interface_index, const Address& to, std::span<const std::byte> message) {
  Result<Route> route = stack_.FindRoute({.remote = to, .interface_index = interface_index});
  if (!route || route->interface().is_loopback()) return;
  (void)route->Write(
      Buffer::CopyOf(message, route->headroom() + 4),
      {.protocol = IPPROTO_IGMP, .ttl = 1, .traffic_class = 0xc0, .router_alert = true, .multicast_loop = false});
}

}  // namespace redoubt::netstack
