// ICMP (RFC 792; RFC 1122 section 3.2.2; RFC 1191).
#include "pkg/netstack/header/icmp.h"

#include <netinet/in.h>

#include <algorithm>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/ipv4/ipv4.h"

namespace redoubt::netstack {

using header::Icmp;
using header::Ipv4;

namespace {

void Count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

// RFC 1812 section 4.3.2.3: as much as fits into 576 bytes.
constexpr size_t kMaxErrorSize = 576;

// RFC 1191 section 7.1: the next plausible MTU below, for routers that do not say theirs.
uint32_t Plateau(uint32_t length) {
  for (uint32_t mtu : {32000u, 17914u, 8166u, 4352u, 2002u, 1492u, 1006u, 508u, 296u}) {
    if (mtu < length) return mtu;
  }
  return Ipv4::kMinMtu;
}

struct Meaning {
  int error;
  bool hard;
};

// ip(7), "IP_RECVERR", and RFC 1122 sections 3.2.2.1 and 4.2.3.9.
Meaning Unreachable(uint8_t code) {
  switch (code) {
    case ICMP_NET_UNREACH:
    case ICMP_NET_ANO:
    case ICMP_NET_UNR_TOS:
    case ICMP_NET_UNKNOWN:
      return {ENETUNREACH, code == ICMP_NET_ANO || code == ICMP_NET_UNKNOWN};
    case ICMP_PROT_UNREACH:
      return {ENOPROTOOPT, true};
    case ICMP_PORT_UNREACH:
      return {ECONNREFUSED, true};
    case ICMP_FRAG_NEEDED:
      return {EMSGSIZE, false};
    case ICMP_SR_FAILED:
      return {EOPNOTSUPP, false};
    case ICMP_HOST_UNKNOWN:
      return {EHOSTDOWN, true};
    case ICMP_HOST_ISOLATED:
      return {ENONET, true};
    case ICMP_HOST_ANO:
    case ICMP_PKT_FILTERED:
    case ICMP_PREC_VIOLATION:
    case ICMP_PREC_CUTOFF:
      return {EHOSTUNREACH, true};
    default:
      return {EHOSTUNREACH, false};
  }
}

}  // namespace

void Ipv4Protocol::HandleIcmp(Interface& interface, PacketPtr packet) {
  Count(icmp_stats_.in_messages);
  std::array<std::byte, Icmp::kSize> bytes;
  packet->data.CopyOut(packet->transport_offset, bytes);
  std::optional<Icmp> icmp = packet->transport_length() >= Icmp::kSize ? Icmp::Parse(bytes) : std::nullopt;
  if (!icmp) {
    Count(icmp_stats_.in_errors);
    return;
  }
  if (packet->offload.checksum == ChecksumState::kComplete && Sum(packet->data, packet->transport_offset) != 0xffff) {
    Count(icmp_stats_.in_checksum_errors);
    Count(icmp_stats_.in_errors);
    return;
  }
  switch (icmp->type) {
    case ICMP_ECHO:
      Count(icmp_stats_.in_echos);
      if (icmp->code == 0) Echo(interface, std::move(packet));
      break;
    case ICMP_ECHOREPLY:
      Count(icmp_stats_.in_echo_replies);
      if (TransportProtocol* ping = stack_.transport(IPPROTO_ICMP)) {
        (void)ping->HandlePacket(
            *packet, {.local = packet->destination, .remote = packet->source, .local_port = icmp->echo_id()});
      }
      break;
    case ICMP_DEST_UNREACH:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETERPROB:
      HandleIcmpError(interface, *packet);
      break;
    default:  // others, redirects and source quench (RFC 6633) among them, are for raw sockets only
      break;
  }
}

void Ipv4Protocol::Echo(Interface& interface, PacketPtr packet) {
  if (packet->type != PacketType::kHost || packet->source.IsUnspecified()) return;
  if (!echo_limit_.Allow(stack_.Now())) {
    Count(icmp_stats_.out_rate_limited);
    return;
  }
  Result<Route> route = stack_.FindRoute(
      {.remote = packet->source,
       .local = packet->destination,
       .interface_index = packet->source.IsLinkLocal() && !interface.is_loopback() ? interface.index() : 0});
  if (!route) return;
  Buffer reply = std::move(packet->data);
  reply.TrimFront(packet->transport_offset);
  std::span<std::byte> head = reply.MakeWritable(Icmp::kSize);
  header::Store8(head, 0, ICMP_ECHOREPLY);
  header::Store16(head, 2, UpdateChecksum(header::Load16(head, 2), ICMP_ECHO << 8, ICMP_ECHOREPLY << 8));
  Count(icmp_stats_.out_messages);
  (void)route->Write(std::move(reply), {.protocol = IPPROTO_ICMP, .traffic_class = packet->traffic_class});
}

void Ipv4Protocol::HandleIcmpError(Interface& interface, const Packet& packet) {
  // The message, the quoted header and at least 8 bytes behind it.
  std::array<std::byte, kMaxErrorSize> copy;
  size_t n = packet.data.CopyOut(packet.transport_offset, copy);
  header::Bytes message = header::Bytes(copy).first(n);
  Icmp icmp = *Icmp::Parse(message);
  header::Bytes quoted = message.subspan(Icmp::kSize);
  std::optional<Ipv4> ip = Ipv4::Parse(quoted, 65535);
  // About what we sent ourselves; the first fragment, since the others name no ports.
  if (!ip || ip->fragment_offset != 0 || quoted.size() < ip->header_length + 8u || !stack_.IsLocal(ip->source)) {
    Count(icmp_stats_.in_errors);
    return;
  }
  TransportError error{
      .type = icmp.type, .code = icmp.code, .offender = packet.source, .interface_index = interface.index()};
  if (icmp.type == ICMP_DEST_UNREACH) {
    Meaning meaning = Unreachable(icmp.code);
    error.error = Errno(meaning.error);
    error.hard = meaning.hard;
    if (icmp.code == ICMP_FRAG_NEEDED) {
      uint32_t mtu = icmp.rest & 0xffff;
      if (mtu == 0) mtu = Plateau(ip->total_length);
      // Nothing is too big for a router that is not bigger than what it says fits.
      if (mtu >= ip->total_length) return;
      Result<Route> route =
          stack_.FindRoute({.remote = ip->destination, .broadcast_allowed = true, .forwarding = true});
      if (!route || route->is_loopback()) return;
      error.mtu = stack_.path_mtu().Lower(ip->destination, mtu, route->interface_mtu(), stack_.Now());
    }
  } else {
    error.error = Errno(icmp.type == ICMP_PARAMETERPROB ? EPROTO : EHOSTUNREACH);
    error.hard = icmp.type == ICMP_PARAMETERPROB;
  }
  stack_.DeliverError(ip->protocol, ip->source, ip->destination, error, quoted.subspan(ip->header_length));
}

void Ipv4Protocol::SendError(Interface& interface, const Packet& offending, Failure failure) {
  uint8_t code = failure == Failure::kPortUnreachable       ? ICMP_PORT_UNREACH
                 : failure == Failure::kProtocolUnreachable ? ICMP_PROT_UNREACH
                                                            : ICMP_HOST_UNREACH;
  SendIcmp(interface, offending, ICMP_DEST_UNREACH, code, 0);
}

void Ipv4Protocol::SendIcmp(Interface& interface, const Packet& offending, uint8_t type, uint8_t code, uint32_t rest) {
  // RFC 1122 section 3.2.2: about no error message, no broadcast or multicast (of link or network), no fragment but the
  // first, nobody in particular.
  const Address& source = offending.source;
  if (offending.type != PacketType::kHost || offending.destination.IsMulticast() ||
      interface.IsBroadcast(offending.destination) || source.IsUnspecified() || source.IsMulticast() ||
      source.IsLimitedBroadcast() || (source.IsLoopback() && !stack_.IsLocal(source))) {
    return;
  }
  std::array<std::byte, 2> fragment{};
  offending.data.CopyOut(6, fragment);
  if ((header::Load16(fragment, 0) & 0x1fff) != 0) return;
  if (offending.protocol == IPPROTO_ICMP) {
    std::array<std::byte, 1> its_type{};
    if (offending.data.CopyOut(offending.transport_offset, its_type) != 1 ||
        header::IsIcmpV4Error(header::Load8(its_type, 0))) {
      return;
    }
  }
  if (!error_limit_.Allow(stack_.Now())) {
    Count(icmp_stats_.out_rate_limited);
    return;
  }
  Address local = stack_.IsLocal(offending.destination) ? offending.destination : Address{};
  Result<Route> route = stack_.FindRoute({.remote = source, .local = local});
  if (!route) return;
  constexpr size_t kQuoted = kMaxErrorSize - Ipv4::kMinSize - Icmp::kSize;
  size_t quoted = std::min(offending.data.size(), kQuoted);
  Buffer message = Buffer::Allocate(Icmp::kSize + quoted, route->headroom());
  std::span<std::byte> out = message.MutableView(0);
  Icmp{.type = type, .code = code, .rest = rest}.Write(out);
  offending.data.CopyOut(0, out.subspan(Icmp::kSize));
  header::Store16(out, 2, static_cast<uint16_t>(~Sum(out)));
  Count(icmp_stats_.out_messages);
  // RFC 1812 section 4.3.2.5: precedence "internetwork control".
  (void)route->Write(std::move(message), {.protocol = IPPROTO_ICMP, .traffic_class = 0xc0});
}

}  // namespace redoubt::netstack
