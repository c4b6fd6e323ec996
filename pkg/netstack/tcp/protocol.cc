#include "pkg/netstack/tcp/protocol.h"

#include <netinet/in.h>

#include <algorithm>
#include <memory>
#include <span>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/tcp/coalescer.h"
#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/transport/filtered_packet.h"

namespace redoubt::netstack::tcp {

namespace {
constexpr size_t kDataOffset = 12;  // where in a header its length is
}  // namespace

TcpProtocol::TcpProtocol(Stack& stack)
    : stack_(stack),
      hash_key_(NewHashKey(stack.random())),
      cookies_(stack.random()),
      listeners_mu_(sync::Rank::kNetDemux),
      open_mu_(sync::Rank::kNetDemux) {
  for (auto& shard : shards_) shard = std::make_unique<Shard>(&hash_key_);
}

TcpProtocol::~TcpProtocol() = default;

uint8_t TcpProtocol::number() const { return IPPROTO_TCP; }

Disposition TcpProtocol::HandlePacket(Packet& packet, const FourTuple& id) {
  stats_.in_segments.fetch_add(1, std::memory_order_relaxed);
  // RFC 9293 section 3.9.2.3 (MUST-57): only unicast, both ways.
  if (packet.type != PacketType::kHost || packet.destination.IsMulticast() || packet.source.IsMulticast() ||
      packet.source.IsUnspecified() || packet.destination.IsLimitedBroadcast()) {
    return Disposition::kHandled;
  }
  const size_t header_at = packet.transport_offset;
  if (packet.offload.checksum == ChecksumState::kComplete) {
    uint16_t pseudo = PseudoHeaderSum(packet.source.bytes(), packet.destination.bytes(), IPPROTO_TCP,
                                      static_cast<uint32_t>(packet.data.size() - header_at));
    if (Sum(packet.data, header_at, pseudo) != 0xffff) {
      stats_.in_checksum_errors.fetch_add(1, std::memory_order_relaxed);
      return Disposition::kMalformed;
    }
  }
  if (filtered_.load(std::memory_order_relaxed) && !Filter(packet, id)) return Disposition::kHandled;
  packet.data.TrimFront(header_at);
  Ports ports;
  std::optional<Segment> segment = ParseSegment(std::move(packet.data), &ports);
  if (!segment) {
    stats_.in_errors.fetch_add(1, std::memory_order_relaxed);
    return Disposition::kMalformed;
  }
  segment->ecn = static_cast<Ecn>(packet.traffic_class & 3);
  if (RefPtr<Endpoint> endpoint = Find(id)) {
    const bool joined = packet.offload.gso != GsoKind::kNone;  // by who sent it
    if (FrameBatch::Active() && Coalescer::OfThread().Take(endpoint, *segment, !joined)) return Disposition::kHandled;
    if (endpoint->HandleSegment(*segment)) return Disposition::kHandled;
    stats_.time_wait_reused.fetch_add(1, std::memory_order_relaxed);
  }
  if (RefPtr<Endpoint> listener = FindListener(id, packet.interface_index)) {
    listener->HandleListen(id, *segment, packet.interface_index);
  } else {
    SendReset(id, *segment);
  }
  return Disposition::kHandled;
}

// A filter is about the segment with its header, which stays whole: what it cuts off will be sent again.
bool TcpProtocol::Filter(Packet& packet, const FourTuple& id) {
  RefPtr<Endpoint> endpoint = Find(id);
  if (!endpoint) endpoint = FindListener(id, packet.interface_index);
  const std::shared_ptr<const bpf::Program> filter = endpoint ? endpoint->filter() : nullptr;
  if (filter == nullptr) return true;
  const size_t at = packet.transport_offset;
  size_t kept = filter->Run(FilteredPacket(packet, at, 0, std::nullopt, stack_.random()));
  if (kept == 0) return false;
  std::byte offset{};
  (void)packet.data.CopyOut(at + kDataOffset, std::span(&offset, 1));
  kept = std::max<size_t>(kept, std::to_integer<size_t>(offset >> 4) * 4);
  if (kept < packet.data.size() - at) packet.data.CapLength(at + kept);
  return true;
}

void TcpProtocol::HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) {
  if (quoted.size() < 8) return;
  RefPtr<Endpoint> endpoint = Find(id);
  if (!endpoint) return;
  Seq seq = 0;
  for (size_t i = 4; i < 8; i++) seq = seq << 8 | std::to_integer<Seq>(quoted[i]);
  endpoint->HandleIcmp(error, seq);
}

void TcpProtocol::Close() {
  for (const RefPtr<Endpoint>& endpoint : Endpoints()) endpoint->Close(true);
}

std::vector<RefPtr<Endpoint>> TcpProtocol::Endpoints() {
  std::vector<RefPtr<Endpoint>> all;
  for (auto& shard : shards_) {
    sync::MutexLock lock(shard->mu);
    for (auto& [id, endpoint] : shard->connections) all.push_back(endpoint);
  }
  sync::MutexLock lock(listeners_mu_);
  for (auto& [port, list] : listeners_) {
    for (Listener& l : list) all.push_back(l.endpoint);
  }
  return all;
}

bool TcpProtocol::Insert(const FourTuple& id, Endpoint& endpoint) {
  Shard& shard = ShardOf(id);
  sync::MutexLock lock(shard.mu);
  return shard.connections.try_emplace(id, RefPtr(&endpoint)).second;
}

void TcpProtocol::Remove(const FourTuple& id, const Endpoint& endpoint) {
  Shard& shard = ShardOf(id);
  RefPtr<Endpoint> gone;  // released after the lock
  sync::MutexLock lock(shard.mu);
  auto it = shard.connections.find(id);
  if (it == shard.connections.end() || it->second.get() != &endpoint) return;
  gone = std::move(it->second);
  shard.connections.erase(it);
}

RefPtr<Endpoint> TcpProtocol::Find(const FourTuple& id) {
  Shard& shard = ShardOf(id);
  sync::MutexLock lock(shard.mu);
  auto it = shard.connections.find(id);
  return it == shard.connections.end() ? nullptr : it->second;
}

bool TcpProtocol::Has(const FourTuple& id) {
  Shard& shard = ShardOf(id);
  sync::MutexLock lock(shard.mu);
  return shard.connections.contains(id);
}

void TcpProtocol::InsertListener(uint16_t port, Listener listener) {
  sync::MutexLock lock(listeners_mu_);
  listeners_[port].push_back(std::move(listener));
}

void TcpProtocol::RemoveListener(uint16_t port, const Endpoint& endpoint) {
  RefPtr<Endpoint> gone;
  sync::MutexLock lock(listeners_mu_);
  auto it = listeners_.find(port);
  if (it == listeners_.end()) return;
  for (auto l = it->second.begin(); l != it->second.end(); ++l) {
    if (l->endpoint.get() != &endpoint) continue;
    gone = std::move(l->endpoint);
    it->second.erase(l);
    break;
  }
  if (it->second.empty()) listeners_.erase(it);
}

// The most particular one; among equals that share the port (SO_REUSEPORT) one by the four-tuple, so that a client
// stays with it.
RefPtr<Endpoint> TcpProtocol::FindListener(const FourTuple& id, uint32_t interface_index) {
  sync::MutexLock lock(listeners_mu_);
  auto it = listeners_.find(id.local_port);
  if (it == listeners_.end()) return nullptr;
  int best = -1;
  uint32_t equals = 0;
  auto score = [&](const Listener& l) {
    if (l.interface_index != 0 && l.interface_index != interface_index) return -1;
    if (!l.address.empty() && l.address != id.local &&
        !(l.address.IsUnspecified() && l.address.family() == id.local.family())) {
      return -1;
    }
    int s = l.interface_index != 0 ? 4 : 0;
    if (l.address == id.local) return s + 2;
    return l.address.empty() ? s : s + 1;
  };
  for (const Listener& l : it->second) {
    int s = score(l);
    if (s > best) best = s, equals = 0;
    if (s == best && s >= 0) equals++;
  }
  if (best < 0) return nullptr;
  uint64_t choice = equals > 1 ? HashTuple(hash_key_, id) / kShards % equals : 0;
  for (const Listener& l : it->second) {
    if (score(l) == best && choice-- == 0) return l.endpoint;
  }
  return nullptr;
}

void TcpProtocol::SendReset(const FourTuple& id, const Segment& to) {
  if (to.Has(kRst)) return;
  Segment reset;
  if (to.Has(kAck)) {
    reset.flags = kRst;
    reset.seq = to.ack;
  } else {
    reset.flags = kRst | kAck;
    reset.ack = to.end();
  }
  stats_.out_resets.fetch_add(1, std::memory_order_relaxed);
  SendAlone(id, reset);
}

void TcpProtocol::SendAlone(const FourTuple& id, Segment& segment) {
  Result<Route> route = stack_.FindRoute({.remote = id.remote, .local = id.local});
  if (!route) return;
  Buffer data = BuildSegment(segment, {id.local_port, id.remote_port}, route->headroom());
  uint16_t pseudo =
      PseudoHeaderSum(id.local.bytes(), id.remote.bytes(), IPPROTO_TCP, static_cast<uint32_t>(data.size()));
  std::byte* field = data.MutableView(0).data() + kChecksumOffset;
  field[0] = static_cast<std::byte>(pseudo >> 8);
  field[1] = static_cast<std::byte>(pseudo);
  WriteOptions options{.protocol = IPPROTO_TCP, .dont_fragment = true};
  options.offload.checksum = ChecksumState::kPartial;
  options.offload.checksum_offset = kChecksumOffset;
  stats_.out_segments.fetch_add(1, std::memory_order_relaxed);
  // As from a network: what cannot be sent is lost.
  (void)route->Write(std::move(data), options);
}

std::optional<FastOpenCookie> TcpProtocol::OpenCookieOf(const Address& server) {
  sync::MutexLock lock(open_mu_);
  auto it = open_cookies_.find(server);
  if (it == open_cookies_.end()) return std::nullopt;
  return it->second;
}

void TcpProtocol::RememberOpenCookie(const Address& server, const FastOpenCookie& cookie) {
  sync::MutexLock lock(open_mu_);
  if (open_cookies_.size() >= kMaxOpenCookies && !open_cookies_.contains(server)) {
    open_cookies_.erase(open_cookies_.begin());
  }
  open_cookies_[server] = cookie;
}

}  // namespace redoubt::netstack::tcp
