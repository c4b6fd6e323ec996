#include <netinet/in.h>

#include <algorithm>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/icmp.h"
#include "pkg/netstack/header/ipv4.h"
#include "pkg/netstack/header/ipv6.h"
#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/udp/udp.h"

namespace redoubt::netstack {

UdpEndpoint::UdpEndpoint(UdpProtocol& protocol, Family family)
    : DatagramEndpoint(protocol.stack()), protocol_(protocol), family_(family) {
  bound_ = Address::Any(family);
}

UdpEndpoint::~UdpEndpoint() = default;

RefPtr<UdpEndpoint> UdpEndpoint::Create(UdpProtocol& protocol, Family family) {
  return MakeRef<UdpEndpoint>(protocol, family);
}

Result<Address> UdpEndpoint::ToWire(const Address& a) const {
  if (a.family() != family_) return Err(EAFNOSUPPORT);
  if (a.IsV4Mapped()) {
    if (options_.v6_only) return Err(ENETUNREACH);
    return a.FromV4Mapped();
  }
  return a;
}

Result<> UdpEndpoint::Bind(const SocketAddress& address) {
  sync::MutexLock lock(mu_);
  if (closed_) return Err(EBADF);
  if (claim_) return Err(EINVAL);
  return BindLocked(address);
}

Result<> UdpEndpoint::BindLocked(const SocketAddress& address) {
  Address wire = TRY(ToWire(address.address));
  if (!wire.IsUnspecified() && !wire.IsMulticast() && !options_.foreign.may_bind() && !stack_.IsLocal(wire)) {
    bool broadcast = wire.IsLimitedBroadcast();
    for (auto& i : stack_.Interfaces()) broadcast = broadcast || i->IsBroadcast(wire);
    if (!broadcast) return Err(EADDRNOTAVAIL);
  }
  claim_ = TRY(stack_.ports().Reserve({.protocol = IPPROTO_UDP,
                                       .address = wire.IsUnspecified() ? Address::Any(family_) : wire,
                                       .port = address.port,
                                       .interface_index = options_.bound_interface,
                                       .v6_only = options_.v6_only,
                                       .reuse_address = options_.reuse_address,
                                       .reuse_port = options_.reuse_port,
                                       .owner = options_.owner}));
  bound_ = wire;
  id_ = {.local = wire, .remote = {}, .local_port = claim_.port()};
  RegisterLocked();
  return {};
}

// Puts the endpoint into the table as id_ now says.
void UdpEndpoint::RegisterLocked() {
  protocol_.Remove(*this, id_.local_port);
  protocol_.Insert({.endpoint = RefPtr<UdpEndpoint>(this),
                    .family = family_,
                    .id = id_,
                    .interface_index = options_.bound_interface,
                    .v6_only = options_.v6_only,
                    .reuse_port = options_.reuse_port});
}

Result<> UdpEndpoint::Connect(const SocketAddress& peer) {
  sync::MutexLock lock(mu_);
  if (closed_) return Err(EBADF);
  SocketAddress wire{TRY(ToWire(peer.address)), peer.port, peer.interface_index};
  Address local = bound_.IsUnspecified() ? Address{} : bound_;
  Route route = TRY(FindRouteLocked(wire, local));
  if (!claim_) TRY(BindLocked({.address = Address::Any(family_)}));
  id_.remote = route.remote();
  id_.remote_port = peer.port;
  id_.local = bound_.IsUnspecified() ? route.local() : bound_;
  peer_interface_ = peer.interface_index;
  connected_ = true;
  RegisterLocked();
  return {};
}

Result<> UdpEndpoint::Disconnect() {
  sync::MutexLock lock(mu_);
  if (!connected_) return {};
  connected_ = false;
  id_.remote = {};
  id_.remote_port = 0;
  id_.local = bound_;
  RegisterLocked();
  return {};
}

Result<size_t> UdpEndpoint::Send(Buffer payload, const std::optional<SocketAddress>& to, const SendOptions& own) {
  if (int error = TakeError(); error != 0) return Err(error);
  size_t size = payload.size();
  if (size > 65535 - header::Udp::kSize) return Err(EMSGSIZE);
  Route route;
  WriteOptions options;
  uint16_t local_port;
  uint16_t segment_size;
  SocketAddress wire;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return Err(EBADF);
    if (write_shutdown_) return Err(EPIPE);
    if (to) {
      if (to->port == 0) return Err(EINVAL);
      wire = {TRY(ToWire(to->address)), to->port, to->interface_index};
    } else if (connected_) {
      wire = {id_.remote, id_.remote_port, peer_interface_};
    } else {
      return Err(EDESTADDRREQ);
    }
    if (!claim_) TRY(BindLocked({.address = Address::Any(family_)}));
    Address local = connected_ && !to ? id_.local : bound_.IsUnspecified() ? Address{} : bound_;
    if (!local.empty() && local.family() != wire.address.family()) return Err(EAFNOSUPPORT);
    route = TRY(FindRouteLocked(wire, local, own));
    options = WriteOptionsLocked(route, IPPROTO_UDP, own);
    local_port = id_.local_port;
    segment_size = own.segment_size.value_or(options_.segment_size);
  }
  if (segment_size != 0) {
    const size_t headers =
        header::Udp::kSize + (route.family() == Family::kIpv4 ? header::Ipv4::kMinSize : header::Ipv6::kSize);
    if (headers + std::min<size_t>(size, segment_size) > route.mtu()) return Err(EMSGSIZE);
    if (size > segment_size * kMaxUdpSegments) return Err(EINVAL);
    if (headers + size > 65535 + (route.family() == Family::kIpv4 ? 0 : header::Ipv6::kSize)) return Err(EMSGSIZE);
  }
  if (segment_size == 0 || size <= segment_size) {
    TRY(SendOne(route, std::move(payload), local_port, wire.port, 0, options));
  } else if (route.is_loopback()) {
    TRY(SendOne(route, std::move(payload), local_port, wire.port, segment_size, options));
  } else {
    // Links cut TCP's segments only. The stamp is the first one's.
    FrameBatch together;
    while (!payload.empty()) {
      Buffer segment = payload.SplitFront(segment_size);
      TRY(SendOne(route, std::move(segment), local_port, wire.port, 0, options));
      options.stamp = {};
    }
  }
  return size;
}

Result<> UdpEndpoint::SendOne(const Route& route, Buffer payload, uint16_t local_port, uint16_t remote_port,
                              uint16_t segment_size, const WriteOptions& how) {
  WriteOptions options = how;
  const size_t length = payload.size() + header::Udp::kSize;
  const size_t datagrams = segment_size == 0 ? 1 : (payload.size() + segment_size - 1) / segment_size;
  header::Udp udp{.source_port = local_port, .destination_port = remote_port, .length = static_cast<uint16_t>(length)};
  uint16_t sum =
      PseudoHeaderSum(route.local().bytes(), route.remote().bytes(), IPPROTO_UDP, static_cast<uint32_t>(length));
  std::span<std::byte> head{payload.Prepend(header::Udp::kSize), header::Udp::kSize};
  if ((route.caps() & kCapTxChecksum) != 0 && (segment_size != 0 || length + 60 <= route.mtu())) {
    udp.checksum = sum;
    udp.Write(head);
    options.offload = {.checksum = ChecksumState::kPartial, .checksum_offset = 6};
    if (segment_size != 0) {
      options.offload.gso = GsoKind::kUdp;
      options.offload.segment_size = segment_size;
      options.offload.transport_header_length = header::Udp::kSize;
    }
  } else {
    udp.Write(head);
    udp.checksum = static_cast<uint16_t>(~Sum(payload, 0, sum));
    if (udp.checksum == 0) udp.checksum = 0xffff;
    header::Store16(head, 6, udp.checksum);
  }
  TRY(route.Write(std::move(payload), options));
  protocol_.stats().out_datagrams.fetch_add(datagrams, std::memory_order_relaxed);
  return {};
}

Result<> UdpEndpoint::Shutdown(bool read, bool write) {
  {
    sync::MutexLock lock(mu_);
    if (!connected_) return Err(ENOTCONN);
    read_shutdown_ = read_shutdown_ || read;
    write_shutdown_ = write_shutdown_ || write;
  }
  waiters_.Notify(waiter::kIn | waiter::kOut | waiter::kRdHup | waiter::kHup);
  return {};
}

void UdpEndpoint::Close() {
  PortManager::Claim claim;
  uint16_t port;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return;
    closed_ = true;
    claim = std::move(claim_);
    port = id_.local_port;
    read_shutdown_ = write_shutdown_ = true;
  }
  LeaveAllGroups();
  if (claim) protocol_.Remove(*this, port);
  waiters_.Notify(waiter::kHup | waiter::kIn);
}

SocketAddress UdpEndpoint::local() const {
  sync::MutexLock lock(mu_);
  Address a = id_.local.empty() || id_.local.IsUnspecified() ? Address::Any(family_) : FromWire(id_.local);
  return {a, id_.local_port};
}

std::optional<SocketAddress> UdpEndpoint::peer() const {
  sync::MutexLock lock(mu_);
  if (!connected_) return std::nullopt;
  return SocketAddress{FromWire(id_.remote), id_.remote_port, peer_interface_};
}

}  // namespace redoubt::netstack
