#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

#include <vector>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/raw/raw.h"

namespace redoubt::netstack {

using header::Icmp;

uint8_t PingProtocol::number() const {
  return family_ == Family::kIpv4 ? uint8_t{IPPROTO_ICMP} : uint8_t{IPPROTO_ICMPV6};
}

Disposition PingProtocol::HandlePacket(Packet& packet, const FourTuple& id) {
  if (packet.destination.family() != family_) return Disposition::kMalformed;
  RefPtr<PingEndpoint> endpoint;
  {
    sync::MutexLock lock(mu_);
    auto it = by_id_.find(id.local_port);
    if (it == by_id_.end()) return Disposition::kHandled;
    endpoint = it->second;
  }
  {
    sync::MutexLock lock(endpoint->mu_);
    if (!endpoint->local_.empty() && !endpoint->local_.IsUnspecified() && endpoint->local_ != id.local) {
      return Disposition::kHandled;
    }
    if (endpoint->peer_ && endpoint->peer_->address != id.remote) return Disposition::kHandled;
  }
  const size_t kept = endpoint->Filter(packet, {.data = packet.transport_offset});
  if (kept == 0) return Disposition::kHandled;
  PacketPtr copy = ClonePacket(packet);
  copy->data.TrimFront(packet.transport_offset);
  copy->data.CapLength(kept);
  (void)endpoint->Enqueue(std::move(copy));
  return Disposition::kHandled;
}

void PingProtocol::HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) {
  RefPtr<PingEndpoint> endpoint;
  {
    sync::MutexLock lock(mu_);
    auto it = by_id_.find(header::Load16(quoted, 4));
    if (it == by_id_.end()) return;
    endpoint = it->second;
  }
  endpoint->ReportError(error, {id.remote}, error.mtu == 0);
}

void PingProtocol::Close() {
  std::vector<RefPtr<PingEndpoint>> all;
  {
    sync::MutexLock lock(mu_);
    for (auto& [id, e] : by_id_) all.push_back(e);
  }
  for (auto& e : all) e->Close();
}

RefPtr<PingEndpoint> PingEndpoint::Create(PingProtocol& protocol) { return MakeRef<PingEndpoint>(protocol); }

Result<> PingEndpoint::Bind(const SocketAddress& address) {
  if (address.address.family() != protocol_.family_) return Err(EAFNOSUPPORT);
  sync::MutexLock lock(mu_);
  if (!address.address.IsUnspecified() && !options_.foreign.may_bind() && !stack_.IsLocal(address.address)) {
    return Err(EADDRNOTAVAIL);
  }
  if (bound_ || closed_) return Err(EINVAL);
  TRY(BindLocked(address.port));
  local_ = address.address;
  return {};
}

Result<> PingEndpoint::BindLocked(uint16_t id) {
  uint32_t start = id != 0 ? id : stack_.random().Below(65535) + 1;
  sync::MutexLock lock(protocol_.mu_);
  for (uint32_t i = 0; i < 65535; i++) {
    uint16_t candidate = static_cast<uint16_t>((start - 1 + i) % 65535 + 1);
    if (protocol_.by_id_.emplace(candidate, RefPtr<PingEndpoint>(this)).second) {
      id_ = candidate;
      bound_ = true;
      return {};
    }
    if (id != 0) break;
  }
  return Err(EADDRINUSE);
}

Result<> PingEndpoint::Connect(const SocketAddress& peer) {
  if (peer.address.family() != protocol_.family_) return Err(EAFNOSUPPORT);
  sync::MutexLock lock(mu_);
  if (closed_) return Err(EBADF);
  TRY(FindRouteLocked(peer, local_.IsUnspecified() ? Address{} : local_));
  if (!bound_) TRY(BindLocked(0));
  peer_ = peer;
  return {};
}

Result<size_t> PingEndpoint::Send(Buffer message, const std::optional<SocketAddress>& to, const SendOptions& own) {
  if (int error = TakeError(); error != 0) return Err(error);
  bool v4 = protocol_.family_ == Family::kIpv4;
  size_t size = message.size();
  if (size > 65535 - 20) return Err(EMSGSIZE);
  std::span<std::byte> head = message.MakeWritable(Icmp::kSize);
  if (head.empty() || header::Load8(head, 0) != (v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST) || header::Load8(head, 1) != 0) {
    return Err(EINVAL);
  }
  Route route;
  WriteOptions options;
  uint16_t id;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return Err(EBADF);
    if (!to && !peer_) return Err(EDESTADDRREQ);
    const SocketAddress& destination = to ? *to : *peer_;
    if (destination.address.family() != protocol_.family_) return Err(EAFNOSUPPORT);
    if (!bound_) TRY(BindLocked(0));
    route = TRY(FindRouteLocked(destination, local_.IsUnspecified() ? Address{} : local_, own));
    options = WriteOptionsLocked(route, protocol_.number(), own);
    id = id_;
  }
  header::Store16(head, 2, 0);
  header::Store16(head, 4, id);
  uint16_t sum =
      v4 ? 0
         : PseudoHeaderSum(route.local().bytes(), route.remote().bytes(), IPPROTO_ICMPV6, static_cast<uint32_t>(size));
  header::Store16(head, 2, static_cast<uint16_t>(~Sum(message, 0, sum)));
  TRY(route.Write(std::move(message), options));
  return size;
}

void PingEndpoint::Close() {
  RefPtr<PingEndpoint> self;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return;
    closed_ = true;
    if (bound_) {
      sync::MutexLock protocol_lock(protocol_.mu_);
      auto it = protocol_.by_id_.find(id_);
      if (it != protocol_.by_id_.end() && it->second.get() == this) {
        self = std::move(it->second);
        protocol_.by_id_.erase(it);
      }
    }
  }
  waiters_.Notify(waiter::kHup | waiter::kIn);
}

uint16_t PingEndpoint::id() const {
  sync::MutexLock lock(mu_);
  return id_;
}

}  // namespace redoubt::netstack
