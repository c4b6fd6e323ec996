#include "pkg/netstack/raw/raw.h"

#include <netinet/in.h>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/ipv4.h"

namespace redoubt::netstack {

// The stack holds the tap, the tap its endpoint: Close breaks the circle.
class RawEndpoint::Tap final : public PacketTap {
 public:
  explicit Tap(RawEndpoint& endpoint) : endpoint_(&endpoint) {}
  void HandleTapped(const Packet& packet) override { endpoint_->Handle(packet); }

 private:
  RefPtr<RawEndpoint> endpoint_;
};

RawEndpoint::RawEndpoint(Stack& stack, Family family, uint8_t protocol)
    : DatagramEndpoint(stack), family_(family), protocol_(protocol), header_included_(protocol == IPPROTO_RAW) {
  local_ = Address::Any(family);
}

RefPtr<RawEndpoint> RawEndpoint::Create(Stack& stack, Family family, uint8_t protocol) {
  auto e = MakeRef<RawEndpoint>(stack, family, protocol);
  if (protocol != IPPROTO_RAW) {
    e->tap_ = MakeRef<Tap>(*e);
    stack.AddRawTap(family, protocol, e->tap_);
  }
  return e;
}

Result<> RawEndpoint::Bind(const SocketAddress& address) {
  if (address.address.family() != family_) return Err(EAFNOSUPPORT);
  sync::MutexLock lock(mu_);
  const bool foreign =
      !address.address.IsUnspecified() && !address.address.IsMulticast() && !stack_.IsLocal(address.address);
  if (foreign && (!options_.foreign.may_bind() || address.address.IsV4Mapped())) return Err(EADDRNOTAVAIL);
  local_ = address.address;
  return {};
}

Result<> RawEndpoint::Connect(const std::optional<SocketAddress>& peer) {
  if (peer && peer->address.family() != family_) return Err(EAFNOSUPPORT);
  sync::MutexLock lock(mu_);
  if (peer) TRY(FindRouteLocked(*peer, local_.IsUnspecified() ? Address{} : local_));
  peer_ = peer;
  return {};
}

void RawEndpoint::SetHeaderIncluded(bool on) {
  sync::MutexLock lock(mu_);
  header_included_ = on;
}

void RawEndpoint::SetFilter(const std::array<uint32_t, 8>& blocked) {
  sync::MutexLock lock(mu_);
  blocked_ = blocked;
}

void RawEndpoint::Handle(const Packet& packet) {
  {
    sync::MutexLock lock(mu_);
    if (!local_.IsUnspecified() && local_ != packet.destination) return;
    if (peer_ && peer_->address != packet.source) return;
    if (packet.destination.IsMulticast() &&
        !TakesMulticastLocked(packet.destination, packet.interface_index, packet.source)) {
      return;
    }
    if (options_.bound_interface != 0 && options_.bound_interface != packet.interface_index) return;
    if (protocol_ == IPPROTO_ICMP || protocol_ == IPPROTO_ICMPV6) {
      std::array<std::byte, 1> type{};
      packet.data.CopyOut(packet.transport_offset, type);
      uint8_t t = header::Load8(type, 0);
      if ((blocked_[t / 32] >> (t % 32) & 1) != 0) return;
    }
  }
  const size_t begin = family_ == Family::kIpv6 ? packet.transport_offset : 0;
  const size_t kept = Filter(packet, {.data = begin});
  if (kept == 0) return;
  PacketPtr copy = ClonePacket(packet);
  copy->data.TrimFront(begin);
  copy->data.CapLength(kept);
  (void)Enqueue(std::move(copy));
}

Result<size_t> RawEndpoint::Send(Buffer data, const std::optional<SocketAddress>& to, const SendOptions& own) {
  size_t size = data.size();
  Route route;
  WriteOptions options;
  bool header_included;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return Err(EBADF);
    if (!to && !peer_) return Err(EDESTADDRREQ);
    const SocketAddress& destination = to ? *to : *peer_;
    if (destination.address.family() != family_) return Err(EAFNOSUPPORT);
    route = TRY(FindRouteLocked(destination, local_.IsUnspecified() ? Address{} : local_, own));
    options = WriteOptionsLocked(route, protocol_, own);
    header_included = header_included_;
  }
  if (header_included) {
    PacketPtr packet = NewPacket(std::move(data));
    packet->stamp = std::move(options.stamp);
    TRY(stack_.network(family_)->OutputRaw(route, std::move(packet)));
    return size;
  }
  if (protocol_ == IPPROTO_ICMPV6) {
    if (size < 4) return Err(EINVAL);
    std::span<std::byte> head = data.MakeWritable(4);
    header::Store16(head, 2, 0);
    uint16_t sum =
        PseudoHeaderSum(route.local().bytes(), route.remote().bytes(), IPPROTO_ICMPV6, static_cast<uint32_t>(size));
    header::Store16(head, 2, static_cast<uint16_t>(~Sum(data, 0, sum)));
  }
  TRY(route.Write(std::move(data), options));
  return size;
}

void RawEndpoint::Close() {
  {
    sync::MutexLock lock(mu_);
    if (closed_) return;
    closed_ = true;
  }
  LeaveAllGroups();
  if (tap_ != nullptr) {
    stack_.RemoveRawTap(*tap_);
    tap_.reset();
  }
  waiters_.Notify(waiter::kHup | waiter::kIn);
}

}  // namespace redoubt::netstack
