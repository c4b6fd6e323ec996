// UDP (RFC 768, RFC 1122 section 4.1; man 7 udp).
#ifndef REDOUBT_PKG_NETSTACK_UDP_UDP_H_
#define REDOUBT_PKG_NETSTACK_UDP_UDP_H_

#include <atomic>
#include <optional>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/ports/port_manager.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/stack/transport_protocol.h"
#include "pkg/netstack/transport/datagram_endpoint.h"

namespace redoubt::netstack {

class UdpEndpoint;

inline constexpr size_t kMaxUdpSegments = 128;  // UDP_MAX_SEGMENTS of linux/udp.h

// As in /proc/net/snmp.
struct UdpStats {
  std::atomic<uint64_t> in_datagrams{0}, no_ports{0}, in_errors{0}, in_checksum_errors{0}, receive_buffer_errors{0},
      out_datagrams{0};
};

// Registered with Stack::RegisterTransport.
class UdpProtocol final : public TransportProtocol {
 public:
  explicit UdpProtocol(Stack& stack);

  uint8_t number() const override;
  size_t minimum_header_size() const override { return 8; }
  Disposition HandlePacket(Packet& packet, const FourTuple& id) override;
  void HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) override;
  void Close() override EXCLUDES(mu_);

  Stack& stack() { return stack_; }
  UdpStats& stats() { return stats_; }

  // All bound endpoints, for /proc/net/udp.
  std::vector<RefPtr<UdpEndpoint>> Endpoints() EXCLUDES(mu_);

 private:
  friend class UdpEndpoint;

  // An endpoint's place in the table. Linear in the endpoints of one port.
  struct Binding {
    RefPtr<UdpEndpoint> endpoint;
    Family family;  // of the socket
    FourTuple id;   // unspecified and 0 match all
    uint32_t interface_index = 0;
    bool v6_only = false;
    bool reuse_port = false;
  };
  void Insert(Binding binding) EXCLUDES(mu_);
  void Remove(const UdpEndpoint& endpoint, uint16_t port) EXCLUDES(mu_);
  static int Score(const Binding& b, const FourTuple& id, uint32_t interface_index);
  RefPtr<UdpEndpoint> Find(const FourTuple& id, uint32_t interface_index) EXCLUDES(mu_);

  Stack& stack_;
  UdpStats stats_;
  const HashKey hash_key_;
  sync::Mutex mu_;
  std::unordered_map<uint16_t, std::vector<Binding>> bindings_ GUARDED_BY(mu_);
};

// A UDP socket without descriptor. IPv6 ones speak IPv4 through mapped addresses unless v6_only; addresses in and out
// of this interface are then mapped.
class UdpEndpoint final : public DatagramEndpoint {
 public:
  static RefPtr<UdpEndpoint> Create(UdpProtocol& protocol, Family family);
  ~UdpEndpoint() override;

  // EINVAL (bound already, wrong family), EADDRNOTAVAIL, EADDRINUSE.
  Result<> Bind(const SocketAddress& address) EXCLUDES(mu_);
  // Fixes the peer; binds if need be. Errors of Stack::FindRoute; EAFNOSUPPORT.
  Result<> Connect(const SocketAddress& peer) EXCLUDES(mu_);
  // connect(2) to AF_UNSPEC.
  Result<> Disconnect() EXCLUDES(mu_);
  // Sends one datagram to `to`, or to the peer, or as many as options().segment_size says: of one too large for the
  // path EMSGSIZE, of too many EINVAL. EDESTADDRREQ, EMSGSIZE, EPIPE, ...; a pending error once. Returns the payload's
  // size.
  Result<size_t> Send(Buffer payload, const std::optional<SocketAddress>& to = {}, const SendOptions& own = {})
      EXCLUDES(mu_);
  // shutdown(2); ENOTCONN.
  Result<> Shutdown(bool read, bool write) EXCLUDES(mu_);
  // Releases the port; nothing comes in any more.
  void Close() EXCLUDES(mu_);

  SocketAddress local() const EXCLUDES(mu_);
  std::optional<SocketAddress> peer() const EXCLUDES(mu_);
  Family family() const { return family_; }

 private:
  friend class UdpProtocol;
  UdpEndpoint(UdpProtocol& protocol, Family family);
  template <typename T, typename... Args>
  friend RefPtr<T> redoubt::MakeRef(Args&&... args);

  Result<> BindLocked(const SocketAddress& address) REQUIRES(mu_);
  void RegisterLocked() REQUIRES(mu_);
  // One datagram, or behind one header as many as a segment size of more than 0 says.
  Result<> SendOne(const Route& route, Buffer payload, uint16_t local_port, uint16_t remote_port, uint16_t segment_size,
                   const WriteOptions& options);
  // To the address of the IP version that will be spoken. EAFNOSUPPORT, ENETUNREACH.
  Result<Address> ToWire(const Address& a) const REQUIRES(mu_);
  Address FromWire(const Address& a) const { return family_ == Family::kIpv6 ? a.ToV4Mapped() : a; }

  UdpProtocol& protocol_;
  const Family family_;
  PortManager::Claim claim_ GUARDED_BY(mu_);
  Address bound_ GUARDED_BY(mu_);  // what bind named, unspecified if it did not
  FourTuple id_ GUARDED_BY(mu_);   // on the wire
  uint32_t peer_interface_ GUARDED_BY(mu_) = 0;
  bool connected_ GUARDED_BY(mu_) = false;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_UDP_UDP_H_
