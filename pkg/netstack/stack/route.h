// A path to one destination: the result of a look-up, through which transports send.
#ifndef REDOUBT_PKG_NETSTACK_STACK_ROUTE_H_
#define REDOUBT_PKG_NETSTACK_STACK_ROUTE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/packet/offload.h"
#include "pkg/netstack/stack/interface.h"
#include "pkg/refs/refs.h"

namespace redoubt::netstack {

class Stack;

// What goes into the network header, beside the addresses.
struct WriteOptions {
  uint8_t protocol = 0;  // IPPROTO_*
  uint8_t ttl = 0;       // or hop limit; 0 means the stack's default (64; 1 for multicast)
  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;     // IPv6, 20 bits
  bool dont_fragment = false;  // IPv4 DF; and no fragmentation here: EMSGSIZE instead (IP_MTU_DISCOVER, man 7 ip)
  bool router_alert = false;   // RFC 2113, RFC 2711
  bool multicast_loop = true;  // IP_MULTICAST_LOOP: members on this host get a copy
  // IPv4 options to send (IP_OPTIONS), borrowed for the call; a multiple of 4, at most 40 bytes.
  std::span<const std::byte> ipv4_options;
  Offload offload;
  StampRequest stamp = {};  // who wants to know when it leaves
};

// A value. Not thread-safe: each user has a copy of its own under its own lock. It stays usable when tables change (it
// then sends where it used to), unless its interface goes away: Write answers ENETDOWN. IsStale says that
// Stack::FindRoute could now answer otherwise; long-lived users ask before they send and look up again.
class Route final {
 public:
  Route() = default;  // no route; Write answers ENETUNREACH

  explicit operator bool() const { return interface_ != nullptr; }
  Interface& interface() const { return *interface_; }
  const Address& local() const { return local_; }
  const Address& remote() const { return remote_; }
  // Whom the link must reach: a gateway, or `remote` itself.
  const Address& next_hop() const { return next_hop_; }
  Family family() const { return remote_.family(); }
  bool is_loopback() const { return (caps_ & kCapLoopback) != 0; }
  bool is_broadcast() const { return broadcast_; }  // of IPv4, limited or directed
  bool is_multicast() const { return remote_.IsMulticast(); }

  // The path MTU: bytes of the largest packet, network header included, that goes unfragmented. Cheap.
  uint32_t mtu() const;
  // Of the interface alone.
  uint32_t interface_mtu() const { return interface_mtu_; }
  LinkCaps caps() const { return caps_; }
  // Bytes of the largest super-segment, network header included; 0 if the link takes none.
  uint32_t gso_max() const { return gso_max_; }
  // Headroom to leave before the transport header, so that lower headers are prepended in place.
  size_t headroom() const;

  bool IsStale() const;

  // Sends one transport header with its payload; without headroom() bytes before it, a chunk is taken for the lower
  // headers. Without GSO it may be larger than the MTU: it is fragmented, or EMSGSIZE if options.dont_fragment. Packets
  // waiting for a neighbour are queued or dropped silently, as by a network. Takes locks of rank above kNetPorts only;
  // on a loopback route the packet may be delivered before Write returns (or by another thread after), so the caller
  // must hold no lock of an endpoint. ENETUNREACH, ENETDOWN, EMSGSIZE, ENOBUFS, EPERM (dropped by a filter).
  Result<> Write(Buffer transport, const WriteOptions& options) const;

 private:
  friend class Stack;

  Stack* stack_ = nullptr;
  RefPtr<Interface> interface_;
  Address local_;
  Address remote_;
  Address next_hop_;
  uint32_t interface_mtu_ = 0;
  uint32_t gso_max_ = 0;
  LinkCaps caps_ = 0;
  bool broadcast_ = false;
  uint32_t generation_ = 0;  // of the routing state it was made from
  mutable uint32_t path_mtu_ = 0;
  mutable uint32_t path_mtu_generation_ = ~0u;
  mutable Time path_mtu_expires_ = kNever;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_ROUTE_H_
