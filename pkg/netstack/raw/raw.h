// Endpoints below the transports: SOCK_RAW (man 7 raw) and ICMP datagrams ("ping sockets", man 7 icmp).
#ifndef REDOUBT_PKG_NETSTACK_RAW_RAW_H_
#define REDOUBT_PKG_NETSTACK_RAW_RAW_H_

#include <array>
#include <optional>
#include <unordered_map>

#include "pkg/errors/errors.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/stack/transport_protocol.h"
#include "pkg/netstack/transport/datagram_endpoint.h"

namespace redoubt::netstack {

// One IP protocol, all packets of it. Who may make one (CAP_NET_RAW) is the embedder's business. Received data begins
// with the IPv4 header, or with the transport header for IPv6. Reads by stack.h's raw tap, so transports get the same
// packets.
class RawEndpoint final : public DatagramEndpoint {
 public:
  // Protocol IPPROTO_RAW only sends, with the header included.
  static RefPtr<RawEndpoint> Create(Stack& stack, Family family, uint8_t protocol);

  // EADDRNOTAVAIL, EAFNOSUPPORT.
  Result<> Bind(const SocketAddress& address) EXCLUDES(mu_);
  // Receives from, and sends to, this one only; nullopt undoes it.
  Result<> Connect(const std::optional<SocketAddress>& peer) EXCLUDES(mu_);
  // IP_HDRINCL, IPV6_HDRINCL.
  void SetHeaderIncluded(bool on) EXCLUDES(mu_);
  // ICMP_FILTER and ICMP6_FILTER: a set bit keeps messages of that type out.
  void SetFilter(const std::array<uint32_t, 8>& blocked) EXCLUDES(mu_);
  // One packet's payload, or the whole packet with the header included. For IPPROTO_ICMPV6 the checksum is filled in
  // (RFC 3542 section 3.1). EDESTADDRREQ, EMSGSIZE, EINVAL, ...
  Result<size_t> Send(Buffer data, const std::optional<SocketAddress>& to = {}, const SendOptions& own = {})
      EXCLUDES(mu_);
  void Close() EXCLUDES(mu_);

 private:
  class Tap;
  RawEndpoint(Stack& stack, Family family, uint8_t protocol);
  template <typename T, typename... Args>
  friend RefPtr<T> redoubt::MakeRef(Args&&... args);
  void Handle(const Packet& packet) EXCLUDES(mu_);

  const Family family_;
  const uint8_t protocol_;
  RefPtr<PacketTap> tap_;
  Address local_ GUARDED_BY(mu_);
  std::optional<SocketAddress> peer_ GUARDED_BY(mu_);
  bool header_included_ GUARDED_BY(mu_);
  std::array<uint32_t, 8> blocked_ GUARDED_BY(mu_){};
};

class PingEndpoint;

// Hands echo replies to the ping endpoint with their identifier. One for ICMP, one for ICMPv6; registered with
// Stack::RegisterTransport, called by the IP protocols for echo replies only.
class PingProtocol final : public TransportProtocol {
 public:
  PingProtocol(Stack& stack, Family family) : stack_(stack), family_(family), mu_(sync::Rank::kNetDemux) {}

  uint8_t number() const override;
  size_t minimum_header_size() const override { return 8; }
  Disposition HandlePacket(Packet& packet, const FourTuple& id) override;
  void HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) override;
  void Close() override EXCLUDES(mu_);

 private:
  friend class PingEndpoint;
  Stack& stack_;
  const Family family_;
  sync::Mutex mu_;
  std::unordered_map<uint16_t, RefPtr<PingEndpoint>> by_id_ GUARDED_BY(mu_);
};

class PingEndpoint final : public DatagramEndpoint {
 public:
  static RefPtr<PingEndpoint> Create(PingProtocol& protocol);

  // The port is the identifier; 0: one is chosen. EADDRINUSE, EADDRNOTAVAIL, EINVAL.
  Result<> Bind(const SocketAddress& address) EXCLUDES(mu_);
  Result<> Connect(const SocketAddress& peer) EXCLUDES(mu_);
  // An echo request from its ICMP header on; identifier and checksum are filled in. EINVAL for anything else.
  Result<size_t> Send(Buffer message, const std::optional<SocketAddress>& to = {}, const SendOptions& own = {})
      EXCLUDES(mu_);
  void Close() EXCLUDES(mu_);
  uint16_t id() const EXCLUDES(mu_);

 private:
  friend class PingProtocol;
  explicit PingEndpoint(PingProtocol& protocol) : DatagramEndpoint(protocol.stack_), protocol_(protocol) {}
  template <typename T, typename... Args>
  friend RefPtr<T> redoubt::MakeRef(Args&&... args);
  Result<> BindLocked(uint16_t id) REQUIRES(mu_);

  PingProtocol& protocol_;
  uint16_t id_ GUARDED_BY(mu_) = 0;
  bool bound_ GUARDED_BY(mu_) = false;
  Address local_ GUARDED_BY(mu_);
  std::optional<SocketAddress> peer_ GUARDED_BY(mu_);
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_RAW_RAW_H_
