// The seam at which transports plug in: what the stack gives a protocol, and the errors ICMP brings it.
#ifndef REDOUBT_PKG_NETSTACK_STACK_TRANSPORT_PROTOCOL_H_
#define REDOUBT_PKG_NETSTACK_STACK_TRANSPORT_PROTOCOL_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/packet/packet.h"

namespace redoubt::netstack {

// The two ends of a conversation, as seen from here. Ports in host order; an unconnected end is unspecified and 0.
struct FourTuple {
  Address local;
  Address remote;
  uint16_t local_port = 0;
  uint16_t remote_port = 0;

  friend constexpr bool operator==(const FourTuple&, const FourTuple&) = default;
};

// Where an error comes from; the values of sock_extended_err's ee_origin (linux/errqueue.h, man 7 ip).
enum class ErrorOrigin : uint8_t { kLocal = 1, kIcmp = 2, kIcmp6 = 3 };

// An error about a packet that was sent. With kIcmp and kIcmp6 anyone may have forged it.
struct TransportError {
  ErrorOrigin origin = ErrorOrigin::kIcmp;
  uint8_t type = 0;  // ICMP's or ICMPv6's
  uint8_t code = 0;
  // What a connected socket returns (as ip(7) and ipv6(7) map them): ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ...
  Errno error{EHOSTUNREACH};
  // RFC 1122 section 4.2.3.9: aborts a connection that is being made (port or protocol unreachable, prohibited).
  bool hard = false;
  // EMSGSIZE: the next hop's MTU, at least 68 or 1280; the stack has put it into the path MTU cache already, so
  // Route::mtu shows it, if the path was accepted. 0 for other errors.
  uint32_t mtu = 0;
  Address offender;  // who sent the error
  uint32_t interface_index = 0;
};

enum class Disposition : uint8_t {
  kHandled,          // taken, or dropped and counted by the protocol
  kMalformed,        // the stack counts it
  kPortUnreachable,  // nobody listens: the stack answers with ICMP port unreachable where RFC 1122 and RFC 4443 allow
};

// A transport over IP with ports in the first four bytes of its header. Registered with Stack::RegisterTransport before
// the first interface is added, lives as long as the stack. Thread-safe; called with no lock held.
class TransportProtocol {
 public:
  virtual ~TransportProtocol() = default;

  virtual uint8_t number() const = 0;              // IPPROTO_TCP, IPPROTO_UDP
  virtual size_t minimum_header_size() const = 0;  // shorter packets are malformed and do not come here

  // A packet for this host (unicast, multicast or broadcast: packet.destination and packet.type tell), whole and
  // with its network header checked; `id` is {destination, source, ports}. The protocol verifies its checksum unless
  // packet.offload says that it need not, and may move packet.data out if it returns kHandled. The transport header
  // begins at packet.transport_offset; it need not be contiguous.
  virtual Disposition HandlePacket(Packet& packet, const FourTuple& id) = 0;

  // An ICMP error about a packet with our source address that this host may have sent; `id` is {its source, its
  // destination, ports}, `quoted` begins at its transport header and has at least 8 bytes. The protocol checks what it
  // can (RFC 5927).
  virtual void HandleError(const FourTuple& id, const TransportError& error, std::span<const std::byte> quoted) = 0;

  // Stack::Close: abort and release all endpoints; no packet comes in any more.
  virtual void Close() {}
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_TRANSPORT_PROTOCOL_H_
