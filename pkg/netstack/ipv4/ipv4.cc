#include "pkg/netstack/ipv4/ipv4.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"

namespace redoubt::netstack {

using header::Ipv4;

namespace {

void Count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

// Writes `ip` and its options in front of the data, with the checksum.
void PrependHeader(Packet& packet, Ipv4 ip, header::Bytes options) {
  std::span<std::byte> out{packet.data.Prepend(ip.header_length), ip.header_length};
  ip.checksum = 0;
  ip.Write(out);
  std::ranges::copy(options, out.begin() + Ipv4::kMinSize);
  header::Store16(out, 10, static_cast<uint16_t>(~Sum(out)));
}

void FillFields(Packet& packet, const Ipv4& ip) {
  packet.ethertype = header::kEtherTypeIpv4;
  packet.source = ip.source;
  packet.destination = ip.destination;
  packet.protocol = ip.protocol;
  packet.ttl = ip.ttl;
  packet.traffic_class = ip.traffic_class;
  packet.transport_offset = ip.header_length;
  packet.options_length = static_cast<uint8_t>(ip.header_length - Ipv4::kMinSize);
}

// What a link that completes checksums would do, for packets that it cannot see whole.
bool CompleteChecksum(Packet& packet) {
  if (packet.offload.checksum != ChecksumState::kPartial) return true;
  uint16_t checksum = static_cast<uint16_t>(~Sum(packet.data, packet.transport_offset));
  size_t at = packet.transport_offset + size_t{packet.offload.checksum_offset};
  std::span<std::byte> front = packet.data.MakeWritable(at + 2);
  if (front.empty()) return false;
  header::Store16(front, at, checksum);
  packet.offload.checksum = ChecksumState::kComplete;
  return true;
}

}  // namespace

Ipv4Protocol::Ipv4Protocol(Stack& stack, ArpProtocol& arp)
    : stack_(stack),
      arp_(arp),
      stats_(stack.ip_stats(Family::kIpv4)),
      id_key_(NewHashKey(stack.random())),
      reassembler_(MakeRef<Reassembler>(stack.clock(), stack.random(), stack.timers(), kReassemblyTimeout,
                                        [this](PacketPtr first) {
                                          RefPtr<Interface> interface = stack_.FindInterface(first->interface_index);
                                          if (interface != nullptr) {
                                            SendIcmp(*interface, *first, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, 0);
                                          }
                                        })),
      groups_(MakeRef<GroupReporter>(stack.clock(), stack.random(), stack.timers(),
                                     static_cast<GroupReporter::Delegate&>(*this))) {}

Ipv4Protocol::~Ipv4Protocol() {
  reassembler_->Close();
  groups_->Close();
}

uint16_t Ipv4Protocol::ethertype() const { return header::kEtherTypeIpv4; }

void Ipv4Protocol::HandlePacket(Interface& interface, PacketPtr packet) {
  Count(stats_.in_receives);
  size_t size = packet->data.size();
  header::Bytes front = packet->data.PullUp(std::min(size, Ipv4::kMaxSize));
  std::optional<Ipv4> ip = Ipv4::Parse(front, size);
  if (!ip || Sum(front.first(ip->header_length)) != 0xffff) {
    Count(stats_.in_header_errors);
    return;
  }
  packet->data.CapLength(ip->total_length);  // what is behind is padding of the link
  FillFields(*packet, *ip);
  packet->router_alert = false;
  if (packet->options_length != 0) {
    size_t error_at = 0;
    std::optional<header::Ipv4Options> options =
        header::Ipv4Options::Parse(front.subspan(Ipv4::kMinSize, packet->options_length), error_at);
    if (!options) {
      Count(stats_.in_header_errors);
      SendIcmp(interface, *packet, ICMP_PARAMETERPROB, 0, static_cast<uint32_t>(Ipv4::kMinSize + error_at) << 24);
      return;
    }
    if (options->source_route) {
      Count(stats_.in_header_errors);
      return;
    }
    packet->router_alert = options->router_alert;
  }
  // Addresses that no packet may have come with (RFC 1122 section 3.2.1.3).
  const Address& source = ip->source;
  const Address& destination = ip->destination;
  bool martian = source.IsMulticast() || interface.IsBroadcast(source) || destination.IsUnspecified() ||
                 (!interface.is_loopback() && (source.IsLoopback() || destination.IsLoopback() ||
                                               (!source.IsUnspecified() && stack_.IsLocal(source))));
  bool broadcast = interface.IsBroadcast(destination);
  bool multicast = destination.IsMulticast();
  if (source.IsUnspecified() && !broadcast && !multicast) martian = true;
  // RFC 1122 section 3.3.6: a link broadcast of a unicast packet.
  if (!broadcast && !multicast && (packet->type == PacketType::kBroadcast || packet->type == PacketType::kMulticast)) {
    martian = true;
  }
  if (martian) {
    Count(stats_.in_address_errors);
    return;
  }
  if (stack_.hooks().Run(HookPlace::kPrerouting, *packet, &interface, nullptr) == HookVerdict::kDrop) {
    Count(stats_.in_discards);
    return;
  }
  if (broadcast) packet->type = PacketType::kBroadcast;
  if (multicast) packet->type = PacketType::kMulticast;
  if (!broadcast &&
      !(multicast ? interface.IsMember(destination) || interface.is_loopback() : stack_.IsLocal(destination))) {
    if (!multicast && stack_.forwarding(Family::kIpv4)) {
      Forward(interface, std::move(packet), *ip);
    } else {
      Count(stats_.in_address_errors);
    }
    return;
  }
  if (ip->is_fragment()) {
    Count(stats_.reassembly_required);
    Reassembler::Added added = reassembler_->Add({source, destination, ip->id, ip->protocol}, std::move(packet),
                                                 ip->header_length, ip->fragment_offset, ip->more_fragments);
    if (added.outcome == Reassembler::Outcome::kDropped) Count(stats_.reassembly_fails);
    if (added.outcome != Reassembler::Outcome::kComplete) return;
    packet = std::move(added.packet);
    // The header now says what it would have, had the datagram come whole.
    size_t total = packet->data.size();
    if (total > 65535) {
      Count(stats_.reassembly_fails);
      return;
    }
    Count(stats_.reassembly_ok);
    std::span<std::byte> head = packet->data.MakeWritable(packet->transport_offset);
    header::Store16(head, 2, static_cast<uint16_t>(total));
    header::Store16(head, 6, 0);
    header::Store16(head, 10, 0);
    header::Store16(head, 10, static_cast<uint16_t>(~Sum(head)));
    packet->interface = &interface;
    packet->offload = {};
  }
  Deliver(interface, std::move(packet));
}

void Ipv4Protocol::Deliver(Interface& interface, PacketPtr packet) {
  if (stack_.hooks().Run(HookPlace::kInput, *packet, &interface, nullptr) == HookVerdict::kDrop) {
    Count(stats_.in_discards);
    return;
  }
  switch (packet->protocol) {
    case IPPROTO_ICMP:
      Count(stats_.in_delivers);
      stack_.TapRaw(*packet);
      HandleIcmp(interface, std::move(packet));
      return;
    case IPPROTO_IGMP:
      Count(stats_.in_delivers);
      stack_.TapRaw(*packet);
      HandleIgmp(interface, *packet);
      return;
    default:
      stack_.DeliverTransport(interface, std::move(packet));
  }
}

void Ipv4Protocol::Forward(Interface& interface, PacketPtr packet, Ipv4 ip) {
  if (packet->type != PacketType::kHost || ip.destination.IsLinkLocal() || ip.source.IsLinkLocal() ||
      ip.source.IsUnspecified()) {
    Count(stats_.in_address_errors);
    return;
  }
  if (ip.ttl <= 1) {
    Count(stats_.in_header_errors);
    SendIcmp(interface, *packet, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, 0);
    return;
  }
  Result<Route> route = stack_.FindRoute({.remote = ip.destination, .forwarding = true});
  if (!route) {
    Count(stats_.out_no_routes);
    SendIcmp(interface, *packet, ICMP_DEST_UNREACH,
             route.error().value() == EHOSTUNREACH ? ICMP_HOST_UNREACH : ICMP_NET_UNREACH, 0);
    return;
  }
  uint32_t mtu = route->interface_mtu();
  bool too_big = packet->data.size() > mtu && packet->offload.gso == GsoKind::kNone;
  if (too_big && ip.dont_fragment) {
    SendIcmp(interface, *packet, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, mtu);
    return;
  }
  std::span<std::byte> head = packet->data.MakeWritable(Ipv4::kMinSize);
  uint16_t before = header::Load16(head, 8);
  ip.ttl--;
  packet->ttl = ip.ttl;
  header::Store8(head, 8, ip.ttl);
  header::Store16(head, 10, UpdateChecksum(header::Load16(head, 10), before, header::Load16(head, 8)));
  PacketHooks& hooks = stack_.hooks();
  if (hooks.Run(HookPlace::kForward, *packet, &interface, &route->interface()) == HookVerdict::kDrop ||
      hooks.Run(HookPlace::kPostrouting, *packet, nullptr, &route->interface()) == HookVerdict::kDrop) {
    Count(stats_.in_discards);
    return;
  }
  Count(stats_.forwarded);
  if (too_big) {
    (void)SendFragments(*route, std::move(packet), ip, mtu);
  } else {
    (void)route->interface().Send(route->next_hop(), std::move(packet));
  }
}

Result<> Ipv4Protocol::Output(const Route& route, PacketPtr packet, const WriteOptions& options) {
  Count(stats_.out_requests);
  if (options.ipv4_options.size() > Ipv4::kMaxSize - Ipv4::kMinSize || options.ipv4_options.size() % 4 != 0) {
    return Err(EINVAL);
  }
  // RFC 2113; of our own messages only, so it comes without the caller's options.
  static constexpr std::byte kRouterAlert[] = {std::byte{148}, std::byte{4}, std::byte{0}, std::byte{0}};
  header::Bytes ip_options = options.router_alert ? header::Bytes(kRouterAlert) : options.ipv4_options;
  size_t header_length = Ipv4::kMinSize + ip_options.size();
  size_t total = header_length + packet->data.size();
  if (total > 65535) return Err(EMSGSIZE);
  uint32_t mtu = route.mtu();
  bool fits = total <= mtu || packet->offload.gso != GsoKind::kNone;
  if (!fits && options.dont_fragment) {
    Count(stats_.fragments_failed);
    return Err(EMSGSIZE);
  }
  uint8_t ttl = options.ttl != 0 ? options.ttl : route.is_multicast() ? 1 : stack_.default_ttl();
  Ipv4 ip{.header_length = static_cast<uint8_t>(header_length),
          .traffic_class = options.traffic_class,
          .total_length = static_cast<uint16_t>(total),
          // RFC 6864 section 4.1: what is never fragmented needs none.
          .id = options.dont_fragment ? uint16_t{0} : NextId(route.local(), route.remote()),
          .dont_fragment = options.dont_fragment,
          .ttl = ttl,
          .protocol = options.protocol,
          .source = route.local(),
          .destination = route.remote()};
  PrependHeader(*packet, ip, ip_options);
  FillFields(*packet, ip);
  return Transmit(route, std::move(packet), ip, options.multicast_loop);
}

Result<> Ipv4Protocol::OutputRaw(const Route& route, PacketPtr packet) {
  Count(stats_.out_requests);
  size_t size = packet->data.size();
  if (size > 65535) return Err(EMSGSIZE);
  if (size < Ipv4::kMinSize) return Err(EINVAL);
  std::span<std::byte> head = packet->data.MakeWritable(std::min(size, Ipv4::kMaxSize));
  // man 7 raw: total length and checksum are always filled in; source and id if they are 0.
  header::Store16(head, 2, static_cast<uint16_t>(size));
  std::optional<Ipv4> ip = Ipv4::Parse(head, size);
  if (!ip) return Err(EINVAL);
  if (size > route.interface_mtu()) return Err(EMSGSIZE);
  if (ip->source.IsUnspecified()) {
    ip->source = route.local();
    header::StoreAddress(head, 12, ip->source);
  }
  if (ip->id == 0) header::Store16(head, 4, NextId(ip->source, ip->destination));
  header::Store16(head, 10, 0);
  header::Store16(head, 10, static_cast<uint16_t>(~Sum(head.first(ip->header_length))));
  FillFields(*packet, *ip);
  return Transmit(route, std::move(packet), *ip, true);
}

Result<> Ipv4Protocol::Transmit(const Route& route, PacketPtr packet, const Ipv4& ip, bool multicast_loop) {
  PacketHooks& hooks = stack_.hooks();
  Interface& out = route.interface();
  if (hooks.Run(HookPlace::kOutput, *packet, nullptr, &out) == HookVerdict::kDrop ||
      hooks.Run(HookPlace::kPostrouting, *packet, nullptr, &out) == HookVerdict::kDrop) {
    Count(stats_.out_discards);
    return Err(EPERM);
  }
  if (!out.is_loopback() &&
      (route.is_broadcast() || (route.is_multicast() && multicast_loop && out.IsMember(ip.destination)))) {
    // Members on this host hear it too, as if it had come from the wire; it was checked when it was made.
    PacketPtr copy = ClonePacket(*packet);
    copy->interface = &out;
    copy->interface_index = out.index();
    copy->received = stack_.Now();
    copy->type = route.is_broadcast() ? PacketType::kBroadcast : PacketType::kMulticast;
    if (copy->offload.checksum == ChecksumState::kComplete) copy->offload.checksum = ChecksumState::kVerified;
    Deliver(out, std::move(copy));
  }
  if (route.is_multicast() && ip.ttl == 0) return {};  // never leaves the host
  uint32_t mtu = route.mtu();
  if (packet->data.size() > mtu && packet->offload.gso == GsoKind::kNone) {
    return SendFragments(route, std::move(packet), ip, mtu);
  }
  return out.Send(route.next_hop(), std::move(packet));
}

Result<> Ipv4Protocol::SendFragments(const Route& route, PacketPtr packet, const Ipv4& ip, uint32_t mtu) {
  if (!CompleteChecksum(*packet)) return Err(EINVAL);
  std::array<std::byte, 40> first_options;
  std::array<std::byte, 40> later_options;
  size_t options_length = ip.header_length - Ipv4::kMinSize;
  packet->data.CopyOut(Ipv4::kMinSize, std::span(first_options).first(options_length));
  size_t later_length = header::CopiedOptions(std::span(first_options).first(options_length), later_options);
  Buffer payload = std::move(packet->data);
  payload.TrimFront(ip.header_length);
  StampRequest stamp = std::move(packet->stamp);  // the first has it
  Ipv4 part = ip;
  part.dont_fragment = false;
  size_t offset = ip.fragment_offset;
  Result<> result;
  for (bool first = true; !payload.empty(); first = false) {
    header::Bytes options =
        first ? header::Bytes(first_options).first(options_length) : header::Bytes(later_options).first(later_length);
    part.header_length = static_cast<uint8_t>(Ipv4::kMinSize + options.size());
    size_t room = (mtu - part.header_length) / 8 * 8;
    bool last = payload.size() <= mtu - part.header_length;
    PacketPtr fragment = NewPacket(last ? std::move(payload) : payload.SplitFront(room));
    part.total_length = static_cast<uint16_t>(part.header_length + fragment->data.size());
    part.fragment_offset = static_cast<uint16_t>(offset);
    part.more_fragments = !last || ip.more_fragments;
    offset += fragment->data.size();
    // The pieces share their chunks, so the headers get chunks of their own.
    PrependHeader(*fragment, part, options);
    FillFields(*fragment, part);
    if (first) fragment->stamp = std::move(stamp);
    Count(stats_.fragments_created);
    Result<> sent = route.interface().Send(route.next_hop(), std::move(fragment));
    if (!sent && result) result = sent;
    if (last) break;
  }
  Count(result ? stats_.fragments_ok : stats_.fragments_failed);
  return result;
}

// RFC 6864 asks for uniqueness among packets that may be fragmented; RFC 7739 for ids that do not tell one peer about
// another's.
uint16_t Ipv4Protocol::NextId(const Address& source, const Address& destination) {
  std::array<std::byte, 8> pair;
  std::memcpy(pair.data(), source.bytes().data(), 4);
  std::memcpy(pair.data() + 4, destination.bytes().data(), 4);
  return static_cast<uint16_t>(SipHash(id_key_, pair) + id_counter_.fetch_add(1, std::memory_order_relaxed));
}

void Ipv4Protocol::OnUp(Interface& interface) {
  // Memberships outlive the interface's being down; they are told again.
  for (const Address& group : interface.Groups(Family::kIpv4)) groups_->Joined(interface.index(), group);
}

void Ipv4Protocol::OnDown(Interface& interface) { groups_->InterfaceDown(interface.index()); }

void Ipv4Protocol::OnGroupJoined(Interface& interface, const Address& group) {
  if (interface.up() && group != kAllSystemsV4) groups_->Joined(interface.index(), group);
}

void Ipv4Protocol::OnGroupLeft(Interface& interface, const Address& group) {
  if (interface.up() && group != kAllSystemsV4) groups_->Left(interface.index(), group);
}

}  // namespace redoubt::netstack
