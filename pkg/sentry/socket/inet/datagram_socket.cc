#include "pkg/sentry/socket/inet/datagram_socket.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "pkg/sentry/socket/inet/payload.h"

namespace redoubt::inetsock {

using netstack::Buffer;
using netstack::SocketAddress;
using socket::Caller;
using socket::OptionBytes;

namespace {

constexpr size_t kHeadroom = 64;  // for UDP's, IP's and a link's header

// As Linux, nowhere in particular is here.
SocketAddress Destination(SocketAddress to) {
  if (to.address.IsUnspecified()) to.address = netstack::Address::Loopback(to.address.family());
  if (to.address.IsV4Mapped() && to.address.FromV4Mapped().IsUnspecified()) {
    to.address = netstack::Address::Loopback(netstack::Family::kIpv4).ToV4Mapped();
  }
  return to;
}

}  // namespace

DatagramSocket::DatagramSocket(Network& network, vfs::Path path, int family, int type, int protocol, int flags,
                               std::unique_ptr<DatagramTransport> transport)
    : InetSocket(network, std::move(path), family, type, protocol, flags),
      transport_(std::move(transport)),
      endpoint_(transport_->endpoint()) {}

DatagramSocket::~DatagramSocket() { transport_->Close(); }

Result<> DatagramSocket::Bind(const Caller& caller, socket::Address address) {
  const SocketAddress to = TRY(ParseAddress(family(), address));
  if (is_udp()) TRY(CheckPort(caller, to.port));
  return transport_->Bind(to);
}

Result<> DatagramSocket::Connect(const Caller&, socket::Address address, fiber::Time) {
  if (TRY(FamilyOf(address)) == AF_UNSPEC) return transport_->Disconnect();
  return transport_->Connect(Destination(TRY(ParseAddress(family(), address, AcceptsIpv4::kYes))));
}

Result<size_t> DatagramSocket::SendBytes(IoSequence& data, const Way& way, int flags) {
  const size_t n = data.remaining();
  if (n > kMaxPayload) return Err(EMSGSIZE);
  Buffer payload = TRY(CopyInPayload(data, n, kHeadroom));
  fiber::MutexLock lock(cork_mu_);
  if (!pending_ && !cork_ && (flags & MSG_MORE) == 0) {
    return transport_->Send(std::move(payload), way.to, way.own);
  }
  if (corked_.size() + n > kMaxPayload) return Err(EMSGSIZE);
  if (!pending_) corked_way_ = way;
  pending_ = true;
  corked_.Append(std::move(payload));
  if (cork_ || (flags & MSG_MORE) != 0) return n;
  pending_ = false;
  TRY(transport_->Send(std::exchange(corked_, Buffer()), corked_way_.to, corked_way_.own));
  return n;
}

Result<size_t> DatagramSocket::Send(const Caller&, socket::OutMessage& message, int flags, fiber::Time) {
  // Linux's IPv6 sockets do not look at it.
  if ((flags & MSG_OOB) != 0 && family() == AF_INET) return Err(EOPNOTSUPP);
  Way way;
  if (!message.to.empty()) way.to = Destination(TRY(ParseAddress(family(), message.to, AcceptsIpv4::kYes)));
  auto send = [&] {
    Result<size_t> sent = SendBytes(message.data, way, flags);
    if (sent && CompletesZerocopy(*sent, flags)) endpoint_.waiters().Notify(waiter::kErr);
    return sent;
  };
  if (message.control.empty()) return send();
  const std::optional<SocketAddress> to = way.to ? way.to : transport_->peer();
  way.own = TRY(ParseControl(message.control, family() == AF_INET || (to && to->address.IsV4Mapped())));
  // Asked here, as a packet to this host itself leaves by no interface.
  if (way.own.interface_index != 0 && !network_.stack().FindInterface(way.own.interface_index)) return Err(ENODEV);
  Result<size_t> sent = send();
  // A source that is not ours was the message's mistake.
  if (!sent && sent.error() == Errno(EADDRNOTAVAIL) && !way.own.local.empty()) {
    return Err(way.own.local.is_ipv4() ? ENETUNREACH : EINVAL);
  }
  return sent;
}

void DatagramSocket::AddControl(const netstack::Packet& packet, socket::InMessage& message) const {
  const Wanted w = wanted_.load(std::memory_order_relaxed);
  timestamping_.AddReceived(network_, packet.received, message);
  auto add = [&](int level, int type, const auto& value) {
    message.control.push_back({.level = level, .type = type, .data = OptionBytes(value)});
  };
  // Where to cut what is several datagrams.
  if (packet.offload.gso == netstack::GsoKind::kUdp) add(IPPROTO_UDP, UDP_GRO, int{packet.offload.segment_size});
  if (packet.destination.is_ipv4()) {
    if (w.pktinfo) {
      in_pktinfo info{.ipi_ifindex = static_cast<int>(packet.interface_index)};
      info.ipi_addr.s_addr = htonl(packet.destination.ipv4_value());
      info.ipi_spec_dst = info.ipi_addr;
      add(IPPROTO_IP, IP_PKTINFO, info);
    }
    if (w.ttl) add(IPPROTO_IP, IP_TTL, int{packet.ttl});
    if (w.tos) add(IPPROTO_IP, IP_TOS, packet.traffic_class);
  }
  if (w.pktinfo6) {
    in6_pktinfo info{.ipi6_ifindex = packet.interface_index};
    const netstack::Address to = packet.destination.ToV4Mapped();
    std::memcpy(&info.ipi6_addr, to.bytes().data(), sizeof(info.ipi6_addr));
    add(IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
  if (packet.destination.is_ipv6()) {
    if (w.hop_limit) add(IPPROTO_IPV6, IPV6_HOPLIMIT, int{packet.ttl});
    if (w.traffic_class) add(IPPROTO_IPV6, IPV6_TCLASS, int{packet.traffic_class});
  }
}

// MSG_ERRQUEUE: ip(7), IP_RECVERR. The data that caused the error is not kept.
Result<size_t> DatagramSocket::ReceiveError(socket::InMessage& message) {
  std::optional<netstack::QueuedError> e = endpoint_.TakeQueuedError();
  if (!e) {
    const std::optional<netstack::Stamp> stamp = endpoint_.TakeStamp();
    return stamp ? ReceiveStamp(*stamp, message) : zerocopy_.Take(family(), message);
  }
  sock_extended_err error{.ee_errno = static_cast<uint32_t>(e->error.error.value()),
                          .ee_origin = static_cast<uint8_t>(e->error.origin),
                          .ee_type = e->error.type,
                          .ee_code = e->error.code,
                          .ee_info = e->error.mtu};
  std::vector<std::byte> data = OptionBytes(error);
  const bool v6 = e->error.offender.is_ipv6();
  socket::AddressBytes offender = FormatAddress(v6 ? AF_INET6 : AF_INET, e->error.offender, 0);
  data.insert(data.end(), offender.begin(), offender.end());
  message.control.push_back(
      {.level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, .type = v6 ? IPV6_RECVERR : IP_RECVERR, .data = std::move(data)});
  message.flags |= MSG_ERRQUEUE;
  message.from = FormatAddress(family(), e->destination.address, e->destination.port);
  return size_t{0};
}

Result<size_t> DatagramSocket::ReceiveStamp(const netstack::Stamp& stamp, socket::InMessage& message) const {
  const size_t n = TRY(timestamping_.AddSent(network_, family(), stamp, message));
  // By which interface it left, if there is the frame to tell.
  const Wanted w = wanted_.load(std::memory_order_relaxed);
  if (stamp.frame.empty()) return n;
  if (w.pktinfo && family() == AF_INET && timestamping_.has(SOF_TIMESTAMPING_OPT_CMSG)) {
    in_pktinfo info{.ipi_ifindex = static_cast<int>(stamp.interface_index)};
    info.ipi_spec_dst.s_addr = htonl(stamp.source.ipv4_value());
    info.ipi_addr.s_addr = htonl(stamp.destination.ipv4_value());
    message.control.push_back({.level = IPPROTO_IP, .type = IP_PKTINFO, .data = OptionBytes(info)});
  }
  if (w.pktinfo6) {
    in6_pktinfo info{.ipi6_ifindex = stamp.interface_index};
    const netstack::Address to = stamp.destination.ToV4Mapped();
    std::memcpy(&info.ipi6_addr, to.bytes().data(), sizeof(info.ipi6_addr));
    message.control.push_back({.level = IPPROTO_IPV6, .type = IPV6_PKTINFO, .data = OptionBytes(info)});
  }
  return n;
}

Result<size_t> DatagramSocket::ReceiveOnce(socket::InMessage& message, int flags) {
  const bool peek = (flags & MSG_PEEK) != 0;
  size_t skip = peek_offset_.Begin(flags);
  netstack::PacketPtr packet = TRY(peek_offset_.Applies(flags) ? endpoint_.PeekBehind(skip) : endpoint_.Receive(peek));
  if (packet == nullptr) return size_t{0};  // shut down
  const size_t length = packet->data.size();
  const size_t room = message.data.remaining();
  const size_t n = std::min(length - skip, room);
  packet->data.TrimFront(skip);
  // As on Linux a datagram that could not be copied is lost.
  TRY(CopyOutPayload(packet->data, n, message.data));
  const size_t told = (flags & MSG_TRUNC) != 0 ? length : n;
  peek_offset_.Moved(told, flags);
  if (message.want_from) {
    message.from = FormatAddress(family(), packet->source, packet->source_port, packet->interface_index);
  }
  AddControl(*packet, message);
  // As Linux, also where the room was just enough for what is behind the offset.
  if (n < length && room <= length - skip) message.flags |= MSG_TRUNC;
  return told;
}

Result<size_t> DatagramSocket::Receive(socket::InMessage& message, int flags, fiber::Time deadline) {
  if ((flags & MSG_OOB) != 0) return Err(EOPNOTSUPP);
  if ((flags & MSG_ERRQUEUE) != 0) return ReceiveError(message);
  return Wait(*this, waiter::kIn, deadline, [&] { return ReceiveOnce(message, flags); });
}

Result<size_t> DatagramSocket::Read(IoSequence& dst, vfs::IoFlags) {
  if (dst.empty()) return size_t{0};
  socket::InMessage message{.data = std::move(dst)};
  Result<size_t> n = ReceiveOnce(message, 0);
  dst = std::move(message.data);
  return n;
}

Result<> DatagramSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return Err(EINVAL);
  return transport_->Shutdown(how != SHUT_WR, how != SHUT_RD);
}

Result<socket::AddressBytes> DatagramSocket::LocalName() {
  const SocketAddress a = transport_->local();
  return FormatAddress(family(), a.address, a.port, a.interface_index);
}

Result<socket::AddressBytes> DatagramSocket::PeerName() {
  const std::optional<SocketAddress> a = transport_->peer();
  if (!a) return Err(ENOTCONN);
  return FormatAddress(family(), a->address, a->port, a->interface_index);
}

}  // namespace redoubt::inetsock
