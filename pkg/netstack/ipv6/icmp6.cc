// ICMPv6 (RFC 4443) and MLD for hosts (RFC 2710, RFC 3810).
#include <netinet/in.h>

#include <algorithm>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/ipv6/ipv6.h"

namespace redoubt::netstack {

using header::Icmp;
using header::Ipv6;
using header::Mld;

namespace {

void Count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

constexpr uint8_t kMldV2Report = 143;
const Address kAllMldV2Routers = Address::Ipv6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16});

uint16_t Checksum(const Address& source, const Address& destination, std::span<const std::byte> message) {
  return static_cast<uint16_t>(~Sum(message, PseudoHeaderSum(source.bytes(), destination.bytes(), IPPROTO_ICMPV6,
                                                             static_cast<uint32_t>(message.size()))));
}

}  // namespace

void Ipv6Protocol::HandleIcmp(Interface& interface, PacketPtr packet) {
  Count(icmp_stats_.in_messages);
  std::array<std::byte, Icmp::kSize> bytes;
  size_t length = packet->transport_length();
  if (length < Icmp::kSize) {
    Count(icmp_stats_.in_errors);
    return;
  }
  packet->data.CopyOut(packet->transport_offset, bytes);
  Icmp icmp = *Icmp::Parse(bytes);
  if (packet->offload.checksum == ChecksumState::kComplete &&
      Sum(packet->data, packet->transport_offset,
          PseudoHeaderSum(packet->source.bytes(), packet->destination.bytes(), IPPROTO_ICMPV6,
                          static_cast<uint32_t>(length))) != 0xffff) {
    Count(icmp_stats_.in_checksum_errors);
    Count(icmp_stats_.in_errors);
    return;
  }
  switch (icmp.type) {
    case ICMP6_ECHO_REQUEST:
      Count(icmp_stats_.in_echos);
      if (icmp.code == 0) Echo(interface, std::move(packet));
      break;
    case ICMP6_ECHO_REPLY:
      Count(icmp_stats_.in_echo_replies);
      if (TransportProtocol* ping = stack_.transport(IPPROTO_ICMPV6)) {
        (void)ping->HandlePacket(
            *packet, {.local = packet->destination, .remote = packet->source, .local_port = icmp.echo_id()});
      }
      break;
    case ICMP6_DST_UNREACH:
    case ICMP6_PACKET_TOO_BIG:
    case ICMP6_TIME_EXCEEDED:
    case ICMP6_PARAM_PROB:
      HandleIcmpError(interface, *packet);
      break;
    case ND_ROUTER_SOLICIT:
    case ND_ROUTER_ADVERT:
    case ND_NEIGHBOR_SOLICIT:
    case ND_NEIGHBOR_ADVERT:
      Count(icmp_stats_.in_neighbour_messages);
      HandleNdp(interface, *packet, icmp.type);
      break;
    case MLD_LISTENER_QUERY:
    case MLD_LISTENER_REPORT:
      HandleMld(interface, *packet);
      break;
    default:  // redirects are ignored
      break;
  }
}

void Ipv6Protocol::Echo(Interface& interface, PacketPtr packet) {
  if (packet->source.IsUnspecified()) return;
  if (!echo_limit_.Allow(stack_.Now())) {
    Count(icmp_stats_.out_rate_limited);
    return;
  }
  // RFC 4443 section 4.2: a multicast request is answered from a unicast address.
  bool multicast = packet->destination.IsMulticast();
  bool scoped = packet->source.IsLinkLocal() && !interface.is_loopback();
  Result<Route> route = stack_.FindRoute({.remote = packet->source,
                                          .local = multicast ? Address{} : packet->destination,
                                          .interface_index = scoped ? interface.index() : 0});
  if (!route) return;
  Buffer reply = std::move(packet->data);
  reply.TrimFront(packet->transport_offset);
  std::span<std::byte> head = reply.MakeWritable(Icmp::kSize);
  header::Store8(head, 0, ICMP6_ECHO_REPLY);
  uint16_t checksum =
      UpdateChecksum(header::Load16(head, 2), ICMP6_ECHO_REQUEST << 8, static_cast<uint16_t>(ICMP6_ECHO_REPLY << 8));
  if (multicast || packet->offload.checksum == ChecksumState::kPartial) {
    header::Store16(head, 2, 0);
    checksum = static_cast<uint16_t>(~Sum(reply, 0,
                                          PseudoHeaderSum(route->local().bytes(), route->remote().bytes(),
                                                          IPPROTO_ICMPV6, static_cast<uint32_t>(reply.size()))));
  }
  header::Store16(head, 2, checksum);
  Count(icmp_stats_.out_messages);
  (void)route->Write(std::move(reply), {.protocol = IPPROTO_ICMPV6, .traffic_class = packet->traffic_class});
}

void Ipv6Protocol::HandleIcmpError(Interface& interface, const Packet& packet) {
  std::array<std::byte, Ipv6::kMinMtu> copy;
  size_t n = packet.data.CopyOut(packet.transport_offset, copy);
  header::Bytes message = header::Bytes(copy).first(n);
  Icmp icmp = *Icmp::Parse(message);
  header::Bytes quoted = message.subspan(Icmp::kSize);
  std::optional<Ipv6> ip = Ipv6::Parse(quoted, 65575);
  if (!ip || !stack_.IsLocal(ip->source)) {
    Count(icmp_stats_.in_errors);
    return;
  }
  header::Ipv6Extensions extensions = header::Ipv6Extensions::Walk(quoted, ip->next_header, 6, Ipv6::kSize);
  uint8_t protocol = extensions.next_header;
  if (extensions.verdict != header::Ipv6Extensions::Verdict::kAccept) return;
  if (extensions.fragment) {
    if (extensions.fragment->offset != 0) return;
    protocol = extensions.fragment->next_header;
  }
  if (quoted.size() < extensions.offset + 8) {
    Count(icmp_stats_.in_errors);
    return;
  }
  TransportError error{.origin = ErrorOrigin::kIcmp6,
                       .type = icmp.type,
                       .code = icmp.code,
                       .offender = packet.source,
                       .interface_index = interface.index()};
  switch (icmp.type) {
    case ICMP6_DST_UNREACH:
      // ipv6(7) and RFC 4443 section 3.1.
      switch (icmp.code) {
        case ICMP6_DST_UNREACH_NOROUTE:
          error.error = Errno(ENETUNREACH);
          break;
        case ICMP6_DST_UNREACH_ADMIN:
        case 5:
        case 6:
          error.error = Errno(EACCES);
          error.hard = true;
          break;
        case ICMP6_DST_UNREACH_NOPORT:
          error.error = Errno(ECONNREFUSED);
          error.hard = true;
          break;
        default:
          break;  // EHOSTUNREACH
      }
      break;
    case ICMP6_PACKET_TOO_BIG: {
      error.error = Errno(EMSGSIZE);
      if (icmp.rest >= ip->payload_length + Ipv6::kSize) return;
      Result<Route> route = stack_.FindRoute({.remote = ip->destination,
                                              .interface_index = ip->destination.IsLinkLocal() ? interface.index() : 0,
                                              .forwarding = true});
      if (!route || route->is_loopback()) return;
      error.mtu = stack_.path_mtu().Lower(ip->destination, icmp.rest, route->interface_mtu(), stack_.Now());
      break;
    }
    case ICMP6_PARAM_PROB:
      error.error = Errno(EPROTO);
      error.hard = true;
      break;
    default:
      break;
  }
  stack_.DeliverError(protocol, ip->source, ip->destination, error, quoted.subspan(extensions.offset));
}

void Ipv6Protocol::SendError(Interface& interface, const Packet& offending, Failure failure) {
  switch (failure) {
    case Failure::kPortUnreachable:
      SendIcmp(interface, offending, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT, 0);
      break;
    case Failure::kHostUnreachable:
      SendIcmp(interface, offending, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR, 0);
      break;
    case Failure::kProtocolUnreachable: {
      // RFC 8200 section 4: an unrecognized next header is a parameter problem that points at its number.
      std::array<std::byte, Ipv6::kMinMtu> copy;
      size_t n = offending.data.CopyOut(0, copy);
      header::Bytes front = header::Bytes(copy).first(n);
      header::Ipv6Extensions e = header::Ipv6Extensions::Walk(front, header::Load8(front, 6), 6, Ipv6::kSize);
      SendIcmp(interface, offending, ICMP6_PARAM_PROB, ICMP6_PARAMPROB_NEXTHEADER,
               static_cast<uint32_t>(e.next_header_at));
      break;
    }
  }
}

void Ipv6Protocol::SendIcmp(Interface& interface, const Packet& offending, uint8_t type, uint8_t code, uint32_t rest,
                            bool answer_multicast) {
  // RFC 4443 section 2.4 (e).
  const Address& source = offending.source;
  bool multicast = offending.destination.IsMulticast() || offending.type != PacketType::kHost;
  if (source.IsUnspecified() || source.IsMulticast() ||
      (multicast && type != ICMP6_PACKET_TOO_BIG && !answer_multicast)) {
    return;
  }
  if (offending.protocol == IPPROTO_ICMPV6) {
    std::array<std::byte, 1> its_type{};
    if (offending.data.CopyOut(offending.transport_offset, its_type) != 1) return;
    uint8_t t = header::Load8(its_type, 0);
    if (header::IsIcmpV6Error(t) || t == ND_REDIRECT) return;
  }
  if (!error_limit_.Allow(stack_.Now())) {
    Count(icmp_stats_.out_rate_limited);
    return;
  }
  bool scoped = source.IsLinkLocal() && !interface.is_loopback();
  Address local =
      !offending.destination.IsMulticast() && stack_.IsLocal(offending.destination) ? offending.destination : Address{};
  Result<Route> route =
      stack_.FindRoute({.remote = source, .local = local, .interface_index = scoped ? interface.index() : 0});
  if (!route) return;
  size_t quoted = std::min<size_t>(offending.data.size(), Ipv6::kMinMtu - Ipv6::kSize - Icmp::kSize);
  Buffer message = Buffer::Allocate(Icmp::kSize + quoted, route->headroom());
  std::span<std::byte> out = message.MutableView(0);
  Icmp{.type = type, .code = code, .rest = rest}.Write(out);
  offending.data.CopyOut(0, out.subspan(Icmp::kSize));
  header::Store16(out, 2, Checksum(route->local(), route->remote(), out));
  Count(icmp_stats_.out_messages);
  (void)route->Write(std::move(message), {.protocol = IPPROTO_ICMPV6});
}

void Ipv6Protocol::WriteIcmp(Interface& interface, const Address& source, const Address& destination,
                             std::span<std::byte> message, uint8_t hop_limit, bool router_alert,
                             const LinkAddress* link) {
  header::Store16(message, 2, 0);
  header::Store16(message, 2, Checksum(source, destination, message));
  size_t extension = router_alert ? 8 : 0;
  size_t headers = Ipv6::kSize + extension;
  Buffer b = Buffer::Allocate(headers + message.size(), interface.link().header_size());
  std::span<std::byte> out = b.MutableView(0);
  Ipv6{.payload_length = static_cast<uint16_t>(extension + message.size()),
       .next_header = router_alert ? header::kNextHopByHop : static_cast<uint8_t>(IPPROTO_ICMPV6),
       .hop_limit = hop_limit,
       .source = source,
       .destination = destination}
      .Write(out);
  if (router_alert) {
    // RFC 2711: option 5, value 0 (MLD), padded by a PadN.
    constexpr std::byte kHopByHop[] = {std::byte{IPPROTO_ICMPV6},
                                       std::byte{0},
                                       std::byte{5},
                                       std::byte{2},
                                       std::byte{0},
                                       std::byte{0},
                                       std::byte{1},
                                       std::byte{0}};
    std::ranges::copy(kHopByHop, out.begin() + Ipv6::kSize);
  }
  std::ranges::copy(message, out.begin() + static_cast<long>(headers));
  PacketPtr packet = NewPacket(std::move(b));
  packet->ethertype = header::kEtherTypeIpv6;
  packet->source = source;
  packet->destination = destination;
  packet->protocol = IPPROTO_ICMPV6;
  packet->ttl = hop_limit;
  packet->transport_offset = static_cast<uint16_t>(headers);
  Count(icmp_stats_.out_messages);
  if (stack_.hooks().Run(HookPlace::kOutput, *packet, nullptr, &interface) == HookVerdict::kDrop ||
      stack_.hooks().Run(HookPlace::kPostrouting, *packet, nullptr, &interface) == HookVerdict::kDrop) {
    Count(stats_.out_discards);
    return;
  }
  if (link != nullptr) {
    (void)interface.SendTo(*link, std::move(packet));
  } else {
    (void)interface.Send(destination, std::move(packet));
  }
}

void Ipv6Protocol::HandleMld(Interface& interface, const Packet& packet) {
  // RFC 3810 section 6.2: from a link-local address, hop limit 1, with a router alert.
  if (!packet.source.IsLinkLocal() || packet.ttl != 1 || !packet.router_alert) return;
  std::array<std::byte, Mld::kSize> bytes;
  if (packet.data.CopyOut(packet.transport_offset, bytes) != bytes.size()) return;
  Mld mld = *Mld::Parse(bytes);
  if (!mld.group.IsUnspecified() && !mld.group.IsMulticast()) return;
  if (mld.type == MLD_LISTENER_REPORT) {
    groups_->HeardReport(interface.index(), mld.group);
    return;
  }
  bool v2 = packet.transport_length() >= 28;
  uint32_t milliseconds = v2 ? header::DecodeMldV2Code(mld.max_response) : mld.max_response;
  groups_->Query(interface.index(), v2 ? GroupReporter::Version::k3 : GroupReporter::Version::k2, mld.group,
                 milliseconds * kMillisecond);
}

void Ipv6Protocol::SendReport(uint32_t interface_index, GroupReporter::Version version, const Address& group,
                              GroupReporter::Record record) {
  RefPtr<Interface> interface = stack_.FindInterface(interface_index);
  if (interface == nullptr || interface->is_loopback()) return;
  Address source = LinkLocalOf(*interface);
  if (version == GroupReporter::Version::k3) {
    // RFC 3810 section 5.2: one record without sources. The unspecified source is right while there is no other
    // (5.2.13).
    std::array<std::byte, 28> message{};
    header::Store8(message, 0, kMldV2Report);
    header::Store16(message, 6, 1);
    header::Store8(message, 8, static_cast<uint8_t>(record));
    header::StoreAddress(message, 12, group);
    WriteIcmp(*interface, source, kAllMldV2Routers, message, 1, true, nullptr);
    return;
  }
  std::array<std::byte, Mld::kSize> message;
  Mld{.type = MLD_LISTENER_REPORT, .group = group}.Write(message);
  WriteIcmp(*interface, source, group, message, 1, true, nullptr);
}

void Ipv6Protocol::SendLeave(uint32_t interface_index, const Address& group) {
  RefPtr<Interface> interface = stack_.FindInterface(interface_index);
  if (interface == nullptr || interface->is_loopback()) return;
  std::array<std::byte, Mld::kSize> message;
  Mld{.type = MLD_LISTENER_REDUCTION, .group = group}.Write(message);
  WriteIcmp(*interface, LinkLocalOf(*interface), kAllRoutersV6, message, 1, true, nullptr);
}

}  // namespace redoubt::netstack
