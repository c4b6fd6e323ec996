#include "pkg/netstack/ipv6/ipv6.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/link.h"

namespace redoubt::netstack {

using header::Ipv6;
using header::Ipv6Extensions;
using header::Ipv6Fragment;

namespace {

void Count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }

void FillFields(Packet& packet, const Ipv6& ip) {
  packet.ethertype = header::kEtherTypeIpv6;
  packet.source = ip.source;
  packet.destination = ip.destination;
  packet.ttl = ip.hop_limit;
  packet.traffic_class = ip.traffic_class;
  packet.flow_label = ip.flow_label;
  packet.options_length = 0;
}

std::array<uint8_t, 6> NewNonce(RandomSource& random) {
  std::array<uint8_t, 6> nonce;
  random.Fill(std::as_writable_bytes(std::span(nonce)));
  return nonce;
}

// What may come before a fragment's payload or the transport; longer chains are refused.
constexpr size_t kMaxHeaders = 1280;

}  // namespace

Ipv6Protocol::Ipv6Protocol(Stack& stack)
    : stack_(stack),
      stats_(stack.ip_stats(Family::kIpv6)),
      id_key_(NewHashKey(stack.random())),
      nonce_(NewNonce(stack.random())),
      reassembler_(MakeRef<Reassembler>(stack.clock(), stack.random(), stack.timers(), kReassemblyTimeout,
                                        [this](PacketPtr first) {
                                          RefPtr<Interface> interface = stack_.FindInterface(first->interface_index);
                                          if (interface != nullptr) {
                                            SendIcmp(*interface, *first, ICMP6_TIME_EXCEEDED,
                                                     ICMP6_TIME_EXCEED_REASSEMBLY, 0);
                                          }
                                        })),
      groups_(MakeRef<GroupReporter>(stack.clock(), stack.random(), stack.timers(),
                                     static_cast<GroupReporter::Delegate&>(*this))),
      slaac_(MakeRef<Slaac>(stack, [this](Interface& interface) {
        // RFC 4861 section 4.1.
        std::array<std::byte, 16> message{};
        header::Store8(message, 0, ND_ROUTER_SOLICIT);
        Address source = LinkLocalOf(interface);
        size_t size = 8;
        if (!source.IsUnspecified()) {
          header::Store8(message, 8, ND_OPT_SOURCE_LINKADDR);
          header::Store8(message, 9, 1);
          header::StoreLink(message, 10, interface.link_address());
          size = 16;
        }
        WriteIcmp(interface, source, kAllRoutersV6, std::span(message).first(size), 255, false, nullptr);
      })) {}

Ipv6Protocol::~Ipv6Protocol() {
  reassembler_->Close();
  groups_->Close();
  slaac_->Close();
}

uint16_t Ipv6Protocol::ethertype() const { return header::kEtherTypeIpv6; }

// Follows the extension headers from `offset` on; false if the packet goes no further.
bool Ipv6Protocol::WalkExtensions(Interface& interface, Packet& packet, Ipv6Extensions& extensions, uint8_t first,
                                  size_t first_at, size_t offset) {
  header::Bytes front = packet.data.PullUp(std::min(packet.data.size(), kMaxHeaders));
  extensions = Ipv6Extensions::Walk(front, first, first_at, offset);
  packet.router_alert = packet.router_alert || extensions.router_alert;
  packet.transport_offset = static_cast<uint16_t>(extensions.offset);
  packet.protocol = extensions.next_header;
  switch (extensions.verdict) {
    case Ipv6Extensions::Verdict::kAccept:
      return true;
    case Ipv6Extensions::Verdict::kParameterProblem:
      SendIcmp(interface, packet, ICMP6_PARAM_PROB, extensions.code, extensions.pointer, extensions.answer_multicast);
      break;
    default:
      break;
  }
  Count(stats_.in_header_errors);
  return false;
}

void Ipv6Protocol::HandlePacket(Interface& interface, PacketPtr packet) {
  Count(stats_.in_receives);
  size_t size = packet->data.size();
  std::optional<Ipv6> ip = Ipv6::Parse(packet->data.PullUp(std::min(size, Ipv6::kSize)), size);
  if (!ip) {
    Count(stats_.in_header_errors);
    return;
  }
  packet->data.CapLength(Ipv6::kSize + ip->payload_length);
  FillFields(*packet, *ip);
  packet->protocol = ip->next_header;
  packet->transport_offset = Ipv6::kSize;
  packet->router_alert = false;
  const Address& source = ip->source;
  const Address& destination = ip->destination;
  bool multicast = destination.IsMulticast();
  bool martian =
      source.IsMulticast() || destination.IsUnspecified() ||
      (!interface.is_loopback() && (source.IsLoopback() || destination.IsLoopback() || stack_.IsLocal(source))) ||
      source.IsV4Mapped() || destination.IsV4Mapped() ||
      (multicast && (destination[1] & 0xf) <= 1 && !interface.is_loopback()) ||
      (!multicast && (packet->type == PacketType::kBroadcast || packet->type == PacketType::kMulticast));
  if (martian) {
    Count(stats_.in_address_errors);
    return;
  }
  if (stack_.hooks().Run(HookPlace::kPrerouting, *packet, &interface, nullptr) == HookVerdict::kDrop) {
    Count(stats_.in_discards);
    return;
  }
  if (multicast) packet->type = PacketType::kMulticast;
  // A link-local address is ours on its own link only.
  bool local = multicast ? interface.IsMember(destination) || interface.is_loopback()
               : destination.IsLinkLocal() && !interface.is_loopback() ? interface.FindAddress(destination).has_value()
                                                                       : stack_.IsLocal(destination);
  if (!local) {
    if (!multicast && stack_.forwarding(Family::kIpv6)) {
      Forward(interface, std::move(packet), *ip);
    } else {
      Count(stats_.in_address_errors);
    }
    return;
  }
  Ipv6Extensions extensions;
  if (!WalkExtensions(interface, *packet, extensions, ip->next_header, 6, Ipv6::kSize)) return;
  if (extensions.fragment) {
    Count(stats_.reassembly_required);
    const Ipv6Fragment& f = *extensions.fragment;
    size_t length = packet->data.size() - extensions.offset;
    if (f.more && length % 8 != 0) {
      // RFC 8200 section 4.5.
      Count(stats_.in_header_errors);
      SendIcmp(interface, *packet, ICMP6_PARAM_PROB, ICMP6_PARAMPROB_HEADER, 4);
      return;
    }
    uint8_t first = f.next_header;
    size_t first_at = extensions.next_header_at;
    size_t fragment_at = extensions.fragment_at;
    if (f.offset != 0 || f.more) {
      Reassembler::Added added =
          reassembler_->Add({source, destination, f.id, 0}, std::move(packet), extensions.offset, f.offset, f.more);
      if (added.outcome == Reassembler::Outcome::kDropped) Count(stats_.reassembly_fails);
      if (added.outcome != Reassembler::Outcome::kComplete) return;
      packet = std::move(added.packet);
      // The first fragment's own headers count, which may differ from the last one's.
      header::Bytes front = packet->data.PullUp(std::min(packet->data.size(), kMaxHeaders));
      Ipv6Extensions own = Ipv6Extensions::Walk(front, header::Load8(front, 6), 6, Ipv6::kSize);
      if (!own.fragment) return;
      first = own.fragment->next_header;
      first_at = own.next_header_at;
      fragment_at = own.fragment_at;
      packet->interface = &interface;
      packet->offload = {};
      Count(stats_.reassembly_ok);
    }
    // Take the fragment header out.
    Buffer unfragmentable = packet->data.SplitFront(fragment_at);
    packet->data.TrimFront(Ipv6Fragment::kSize);
    unfragmentable.Append(std::move(packet->data));
    packet->data = std::move(unfragmentable);
    size_t payload = packet->data.size() - Ipv6::kSize;
    if (payload > 65535) {
      Count(stats_.reassembly_fails);
      return;
    }
    std::span<std::byte> head = packet->data.MakeWritable(fragment_at);
    header::Store16(head, 4, static_cast<uint16_t>(payload));
    header::Store8(head, first_at, first);
    if (!WalkExtensions(interface, *packet, extensions, first, first_at, fragment_at)) return;
    if (extensions.fragment) {
      Count(stats_.in_header_errors);
      return;
    }
  }
  Deliver(interface, std::move(packet));
}

void Ipv6Protocol::Deliver(Interface& interface, PacketPtr packet) {
  if (stack_.hooks().Run(HookPlace::kInput, *packet, &interface, nullptr) == HookVerdict::kDrop) {
    Count(stats_.in_discards);
    return;
  }
  if (packet->protocol == header::kNextNone) return;
  if (packet->protocol == IPPROTO_ICMPV6) {
    Count(stats_.in_delivers);
    stack_.TapRaw(*packet);
    HandleIcmp(interface, std::move(packet));
    return;
  }
  stack_.DeliverTransport(interface, std::move(packet));
}

void Ipv6Protocol::Forward(Interface& interface, PacketPtr packet, const Ipv6& ip) {
  if (packet->type != PacketType::kHost || ip.source.IsUnspecified() || ip.source.IsLinkLocal() ||
      ip.destination.IsLinkLocal()) {
    Count(stats_.in_address_errors);
    return;
  }
  if (ip.hop_limit <= 1) {
    Count(stats_.in_header_errors);
    SendIcmp(interface, *packet, ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_TRANSIT, 0);
    return;
  }
  Result<Route> route = stack_.FindRoute({.remote = ip.destination, .forwarding = true});
  if (!route) {
    Count(stats_.out_no_routes);
    SendIcmp(interface, *packet, ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOROUTE, 0);
    return;
  }
  if (packet->data.size() > route->interface_mtu() && packet->offload.gso == GsoKind::kNone) {
    SendIcmp(interface, *packet, ICMP6_PACKET_TOO_BIG, 0, route->interface_mtu());
    return;
  }
  header::Store8(packet->data.MakeWritable(Ipv6::kSize), 7, static_cast<uint8_t>(ip.hop_limit - 1));
  packet->ttl--;
  PacketHooks& hooks = stack_.hooks();
  if (hooks.Run(HookPlace::kForward, *packet, &interface, &route->interface()) == HookVerdict::kDrop ||
      hooks.Run(HookPlace::kPostrouting, *packet, nullptr, &route->interface()) == HookVerdict::kDrop) {
    Count(stats_.in_discards);
    return;
  }
  Count(stats_.forwarded);
  (void)route->interface().Send(route->next_hop(), std::move(packet));
}

Result<> Ipv6Protocol::Output(const Route& route, PacketPtr packet, const WriteOptions& options) {
  Count(stats_.out_requests);
  size_t payload = packet->data.size();
  if (payload > 65535) return Err(EMSGSIZE);
  bool fits = payload + Ipv6::kSize <= route.mtu() || packet->offload.gso != GsoKind::kNone;
  if (!fits && options.dont_fragment) {
    Count(stats_.fragments_failed);
    return Err(EMSGSIZE);
  }
  uint8_t hop_limit = options.ttl != 0 ? options.ttl : route.is_multicast() ? 1 : stack_.default_ttl();
  Ipv6 ip{.traffic_class = options.traffic_class,
          .flow_label = options.flow_label,
          .payload_length = static_cast<uint16_t>(payload),
          .next_header = options.protocol,
          .hop_limit = hop_limit,
          .source = route.local(),
          .destination = route.remote()};
  ip.Write({packet->data.Prepend(Ipv6::kSize), Ipv6::kSize});
  FillFields(*packet, ip);
  packet->protocol = options.protocol;
  packet->transport_offset = Ipv6::kSize;
  return Transmit(route, std::move(packet), options.multicast_loop, hop_limit);
}

Result<> Ipv6Protocol::OutputRaw(const Route& route, PacketPtr packet) {
  Count(stats_.out_requests);
  size_t size = packet->data.size();
  std::optional<Ipv6> ip = Ipv6::Parse(packet->data.PullUp(std::min(size, Ipv6::kSize)), size);
  if (!ip) return Err(EINVAL);
  if (size > route.interface_mtu()) return Err(EMSGSIZE);
  FillFields(*packet, *ip);
  packet->protocol = ip->next_header;
  packet->transport_offset = Ipv6::kSize;
  return Transmit(route, std::move(packet), true, ip->hop_limit);
}

Result<> Ipv6Protocol::Transmit(const Route& route, PacketPtr packet, bool multicast_loop, uint8_t hop_limit) {
  PacketHooks& hooks = stack_.hooks();
  Interface& out = route.interface();
  if (hooks.Run(HookPlace::kOutput, *packet, nullptr, &out) == HookVerdict::kDrop ||
      hooks.Run(HookPlace::kPostrouting, *packet, nullptr, &out) == HookVerdict::kDrop) {
    Count(stats_.out_discards);
    return Err(EPERM);
  }
  if (!out.is_loopback() && route.is_multicast() && multicast_loop && out.IsMember(route.remote())) {
    PacketPtr copy = ClonePacket(*packet);
    copy->interface = &out;
    copy->interface_index = out.index();
    copy->received = stack_.Now();
    copy->type = PacketType::kMulticast;
    if (copy->offload.checksum == ChecksumState::kComplete) copy->offload.checksum = ChecksumState::kVerified;
    Deliver(out, std::move(copy));
  }
  if (route.is_multicast() && (hop_limit == 0 || (route.remote()[1] & 0xf) <= 1)) return {};
  uint32_t mtu = route.mtu();
  if (packet->data.size() > mtu && packet->offload.gso == GsoKind::kNone) {
    return SendFragments(route, std::move(packet), mtu);
  }
  return out.Send(route.next_hop(), std::move(packet));
}

// Our own packets have no extension headers, so the unfragmentable part is the IPv6 header alone.
Result<> Ipv6Protocol::SendFragments(const Route& route, PacketPtr packet, uint32_t mtu) {
  if (packet->offload.checksum == ChecksumState::kPartial) {
    uint16_t checksum = static_cast<uint16_t>(~Sum(packet->data, packet->transport_offset));
    size_t at = packet->transport_offset + size_t{packet->offload.checksum_offset};
    std::span<std::byte> front = packet->data.MakeWritable(at + 2);
    if (front.empty()) return Err(EINVAL);
    header::Store16(front, at, checksum);
  }
  Ipv6 ip = *Ipv6::Parse(packet->data.PullUp(Ipv6::kSize), packet->data.size());
  Ipv6Fragment fragment{.next_header = ip.next_header};
  std::array<std::byte, 32> pair;
  std::memcpy(pair.data(), ip.source.bytes().data(), 16);
  std::memcpy(pair.data() + 16, ip.destination.bytes().data(), 16);
  fragment.id = static_cast<uint32_t>(SipHash(id_key_, pair)) + id_counter_.fetch_add(1, std::memory_order_relaxed);
  Buffer payload = std::move(packet->data);
  payload.TrimFront(Ipv6::kSize);
  StampRequest stamp = std::move(packet->stamp);  // the first has it
  size_t room = (mtu - Ipv6::kSize - Ipv6Fragment::kSize) / 8 * 8;
  ip.next_header = header::kNextFragment;
  size_t offset = 0;
  Result<> result;
  while (!payload.empty()) {
    PacketPtr part = NewPacket(payload.SplitFront(room));
    fragment.offset = static_cast<uint16_t>(offset);
    fragment.more = !payload.empty();
    offset += part->data.size();
    ip.payload_length = static_cast<uint16_t>(part->data.size() + Ipv6Fragment::kSize);
    constexpr size_t kHeaders = Ipv6::kSize + Ipv6Fragment::kSize;
    std::span<std::byte> out{part->data.Prepend(kHeaders), kHeaders};
    ip.Write(out);
    fragment.Write(out.subspan(Ipv6::kSize));
    FillFields(*part, ip);
    if (fragment.offset == 0) part->stamp = std::move(stamp);
    part->protocol = header::kNextFragment;
    part->transport_offset = kHeaders;
    Count(stats_.fragments_created);
    Result<> sent = route.interface().Send(route.next_hop(), std::move(part));
    if (!sent && result) result = sent;
  }
  Count(result ? stats_.fragments_ok : stats_.fragments_failed);
  return result;
}

void Ipv6Protocol::OnUp(Interface& interface) {
  slaac_->Start(interface);
  for (const Address& group : interface.Groups(Family::kIpv6)) groups_->Joined(interface.index(), group);
}

void Ipv6Protocol::OnDown(Interface& interface) {
  slaac_->Stop(interface);
  groups_->InterfaceDown(interface.index());
}

// RFC 3810 section 6: nothing is said of all-nodes, nor of scopes below the link.
void Ipv6Protocol::OnGroupJoined(Interface& interface, const Address& group) {
  if (interface.up() && group != kAllNodesV6 && (group[1] & 0xf) > 1) groups_->Joined(interface.index(), group);
}

void Ipv6Protocol::OnGroupLeft(Interface& interface, const Address& group) {
  if (interface.up() && group != kAllNodesV6 && (group[1] & 0xf) > 1) groups_->Left(interface.index(), group);
}

}  // namespace redoubt::netstack
