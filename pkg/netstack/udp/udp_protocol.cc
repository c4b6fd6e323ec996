#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/udp/udp.h"

namespace redoubt::netstack {

namespace {
void Count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }
}  // namespace

UdpProtocol::UdpProtocol(Stack& stack)
    : stack_(stack), hash_key_(NewHashKey(stack.random())), mu_(sync::Rank::kNetDemux) {}

uint8_t UdpProtocol::number() const { return IPPROTO_UDP; }

Disposition UdpProtocol::HandlePacket(Packet& packet, const FourTuple& id) {
  std::array<std::byte, header::Udp::kSize> bytes;
  packet.data.CopyOut(packet.transport_offset, bytes);
  std::optional<header::Udp> udp = header::Udp::Parse(bytes, packet.transport_length());
  if (!udp) {
    Count(stats_.in_errors);
    return Disposition::kMalformed;
  }
  packet.data.CapLength(packet.transport_offset + size_t{udp->length});
  bool unchecked = udp->checksum == 0 && packet.destination.is_ipv4();
  if (packet.offload.checksum == ChecksumState::kComplete && !unchecked) {
    // RFC 8200 section 8.1: over IPv6 zero means nothing but an error.
    if (udp->checksum == 0 ||
        Sum(packet.data, packet.transport_offset,
            PseudoHeaderSum(packet.source.bytes(), packet.destination.bytes(), IPPROTO_UDP, udp->length)) != 0xffff) {
      Count(stats_.in_checksum_errors);
      Count(stats_.in_errors);
      return Disposition::kHandled;
    }
  }
  const size_t payload = udp->length - header::Udp::kSize;
  // One datagram, or several that the link has not taken apart.
  size_t piece = payload;
  if (packet.offload.gso == GsoKind::kUdp) {
    piece = packet.offload.segment_size;
    if (piece == 0 || payload > piece * kMaxUdpSegments) {
      Count(stats_.in_errors);
      return Disposition::kMalformed;
    }
  }
  auto deliver = [&](UdpEndpoint& endpoint, PacketPtr copy) {
    // A filter is about the datagram with its header, of which all stays.
    const size_t kept = endpoint.Filter(*copy, {.data = packet.transport_offset});
    if (kept == 0) {
      Count(stats_.in_errors);
      return;
    }
    copy->data.TrimFront(packet.transport_offset + header::Udp::kSize);
    copy->source_port = id.remote_port;
    copy->source = endpoint.FromWire(packet.source);
    copy->destination = endpoint.FromWire(packet.destination);
    copy->offload = {};
    const size_t own_piece = piece != payload && endpoint.options().join_segments ? payload : piece;
    if (own_piece != piece && piece < payload) {
      copy->offload.gso = GsoKind::kUdp;
      copy->offload.segment_size = static_cast<uint16_t>(piece);
    }
    for (bool last = false; !last;) {
      last = copy->data.size() <= own_piece;
      PacketPtr one = last ? std::move(copy) : ClonePacket(*copy);
      if (!last) {
        one->data.CapLength(own_piece);
        copy->data.TrimFront(own_piece);
      }
      one->data.CapLength(std::max(kept, header::Udp::kSize) - header::Udp::kSize);
      // Else each would be counted with the chunk of all.
      if (own_piece != payload) one->data.Compact();
      if (endpoint.Enqueue(std::move(one))) {
        Count(stats_.in_datagrams);
      } else {
        Count(stats_.receive_buffer_errors);
        Count(stats_.in_errors);
      }
    }
  };
  if (packet.type == PacketType::kMulticast || packet.type == PacketType::kBroadcast) {
    // Everybody who listens gets a copy.
    std::vector<RefPtr<UdpEndpoint>> all;
    {
      sync::MutexLock lock(mu_);
      auto it = bindings_.find(id.local_port);
      if (it != bindings_.end()) {
        for (const Binding& b : it->second) {
          if (Score(b, id, packet.interface_index) >= 0) all.push_back(b.endpoint);
        }
      }
    }
    for (auto& e : all) {
      if (packet.type == PacketType::kMulticast && !e->TakesMulticast(id.local, packet.interface_index, id.remote)) {
        continue;
      }
      deliver(*e, ClonePacket(packet));
    }
    if (all.empty()) Count(stats_.no_ports);
    return Disposition::kHandled;
  }
  RefPtr<UdpEndpoint> endpoint = Find(id, packet.interface_index);
  if (endpoint == nullptr) {
    Count(stats_.no_ports);
    return Disposition::kPortUnreachable;
  }
  PacketPtr whole = NewPacket(std::move(packet.data));
  whole->interface_index = packet.interface_index;
  whole->interface = packet.interface;
  whole->ethertype = packet.ethertype;
  whole->type = packet.type;
  whole->ttl = packet.ttl;
  whole->traffic_class = packet.traffic_class;
  whole->received = packet.received;
  deliver(*endpoint, std::move(whole));
  return Disposition::kHandled;
}

// How well a binding fits; -1 if it does not. What names more of the packet is better, as in Linux.
int UdpProtocol::Score(const Binding& b, const FourTuple& id, uint32_t interface_index) {
  if (b.family == Family::kIpv4 && !id.local.is_ipv4()) return -1;
  if (b.family == Family::kIpv6 && id.local.is_ipv4() && b.v6_only) return -1;
  int score = b.family == id.local.family() ? 1 : 0;
  if (!b.id.local.IsUnspecified()) {
    if (b.id.local != id.local) return -1;
    score += 4;
  }
  if (!b.id.remote.IsUnspecified()) {
    if (b.id.remote != id.remote || b.id.remote_port != id.remote_port) return -1;
    score += 8;
  }
  if (b.interface_index != 0) {
    if (b.interface_index != interface_index) return -1;
    score += 4;
  }
  return score;
}

RefPtr<UdpEndpoint> UdpProtocol::Find(const FourTuple& id, uint32_t interface_index) {
  sync::MutexLock lock(mu_);
  auto it = bindings_.find(id.local_port);
  if (it == bindings_.end()) return nullptr;
  const Binding* best = nullptr;
  int best_score = -1;
  size_t equals = 0;
  for (const Binding& b : it->second) {
    int score = Score(b, id, interface_index);
    if (score > best_score) {
      best = &b;
      best_score = score;
      equals = 1;
    } else if (score == best_score && score >= 0) {
      // The last bound of those with SO_REUSEADDR; a choice below of those with SO_REUSEPORT.
      if (b.reuse_port) {
        equals++;
      } else {
        best = &b;
        equals = 1;
      }
    }
  }
  if (best == nullptr) return nullptr;
  if (equals > 1) {
    // One flow, one endpoint.
    std::array<std::byte, 18> flow{};
    std::memcpy(flow.data(), id.remote.bytes().data(), id.remote.size());
    std::memcpy(flow.data() + 16, &id.remote_port, 2);
    size_t chosen = SipHash(hash_key_, flow) % equals;
    for (const Binding& b : it->second) {
      if (Score(b, id, interface_index) == best_score && b.reuse_port && chosen-- == 0) return b.endpoint;
    }
  }
  return best->endpoint;
}

void UdpProtocol::HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) {
  RefPtr<UdpEndpoint> endpoint = Find(id, 0);
  if (endpoint == nullptr) return;
  // RFC 1122 section 4.1.3.3; Linux tells unconnected sockets only if they ask by IP_RECVERR.
  bool connected = endpoint->peer().has_value();
  endpoint->ReportError(error, {endpoint->FromWire(id.remote), id.remote_port}, connected && error.mtu == 0);
}

void UdpProtocol::Insert(Binding binding) {
  sync::MutexLock lock(mu_);
  bindings_[binding.id.local_port].push_back(std::move(binding));
}

void UdpProtocol::Remove(const UdpEndpoint& endpoint, uint16_t port) {
  RefPtr<UdpEndpoint> last;  // goes after the lock
  sync::MutexLock lock(mu_);
  auto it = bindings_.find(port);
  if (it == bindings_.end()) return;
  auto b = std::ranges::find_if(it->second, [&](const Binding& x) { return x.endpoint.get() == &endpoint; });
  if (b == it->second.end()) return;
  last = std::move(b->endpoint);
  it->second.erase(b);
  if (it->second.empty()) bindings_.erase(it);
}

std::vector<RefPtr<UdpEndpoint>> UdpProtocol::Endpoints() {
  std::vector<RefPtr<UdpEndpoint>> endpoints;
  sync::MutexLock lock(mu_);
  for (const auto& [port, bindings] : bindings_) {
    for (const Binding& b : bindings) endpoints.push_back(b.endpoint);
  }
  return endpoints;
}

void UdpProtocol::Close() {
  std::vector<RefPtr<UdpEndpoint>> all;
  {
    sync::MutexLock lock(mu_);
    for (auto& [port, list] : bindings_) {
      for (Binding& b : list) all.push_back(b.endpoint);
    }
  }
  for (auto& e : all) e->Close();
}

}  // namespace redoubt::netstack
