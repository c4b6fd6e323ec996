// The stack: interfaces, addresses, routes, protocols. The counterpart of Linux's struct net (a network namespace).
//
// Model. Packets come in through LinkEndpoint -> Interface -> NetworkProtocol -> TransportProtocol, and go out through
// Route -> NetworkProtocol -> Interface -> LinkEndpoint, all in the caller's thread: the stack has none. Time passes
// when the embedder calls timers().RunTimers(). Any number of threads may call in at once.
//
// Locks, outermost first (pkg/sync/ranks.h). None of them is held while a packet is handed to another layer, nor
// while a callback runs, so each row is a lock of a few table operations:
//
//   kNetEndpoint          a transport endpoint; packets it makes are sent after it is released
//   ├─ kNetDemux          endpoints by four-tuple
//   ├─ kNetPorts          local ports
//   ├─ kNetStack          lists of interfaces, packet taps
//   ├─ kNetInterface      addresses and groups of one interface
//   │  ├─ kNetLocalAddresses  all addresses of this host
//   │  └─ kNetRoutes      the routing table
//   ├─ kNetNeighbours     one neighbour table
//   ├─ kNetReassembly, kNetPathMtu
//   ├─ kNetLink           queues of one link
//   ├─ kNetTimers         Timer::Schedule is legal under all of the above
//   └─ kNetPool           packets and chunks
#ifndef REDOUBT_PKG_NETSTACK_STACK_STACK_H_
#define REDOUBT_PKG_NETSTACK_STACK_STACK_H_

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/clock/random.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/ports/port_manager.h"
#include "pkg/netstack/routing/path_mtu.h"
#include "pkg/netstack/routing/routing_table.h"
#include "pkg/netstack/stack/interface.h"
#include "pkg/netstack/stack/network_protocol.h"
#include "pkg/netstack/stack/packet_hooks.h"
#include "pkg/netstack/stack/route.h"
#include "pkg/netstack/stack/transport_protocol.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Gets copies of whole packets: raw endpoints (one IP protocol) and packet endpoints (AF_PACKET). Thread-safe, called
// with no lock held.
class PacketTap : public RefCounted {
 public:
  virtual void HandleTapped(const Packet& packet) = 0;
};

// IP_FREEBIND and IP_TRANSPARENT (ip(7)): what may be bound to an address that this host does not have. Linux lets a
// socket with either option send from there over IPv6, over IPv4 only with the latter.
struct ForeignAddresses {
  bool freebind = false;
  bool transparent = false;
  bool may_bind() const { return freebind || transparent; }
  bool may_send(Family family) const { return transparent || (freebind && family == Family::kIpv6); }
  bool operator==(const ForeignAddresses&) const = default;
};

struct RouteRequest {
  Address remote;
  Address local;                   // the source the caller is bound to; none or unspecified: choose
  uint32_t interface_index = 0;    // SO_BINDTODEVICE, IP_MULTICAST_IF, sin6_scope_id; 0: any
  bool broadcast_allowed = false;  // SO_BROADCAST; without it a broadcast address is EACCES
  bool forwarding = false;         // for somebody else's packet: no source is chosen
  ForeignAddresses foreign = {};   // what `local` may be; without EADDRNOTAVAIL, of IPv4 with freebind ENETUNREACH
};

// Of one IP version; names as in /proc/net/snmp (RFC 4293, RFC 2011).
struct IpStats {
  std::atomic<uint64_t> in_receives{0}, in_header_errors{0}, in_address_errors{0}, in_unknown_protocols{0},
      in_discards{0}, in_delivers{0}, forwarded{0}, out_requests{0}, out_discards{0}, out_no_routes{0},
      reassembly_required{0}, reassembly_ok{0}, reassembly_fails{0}, fragments_ok{0}, fragments_failed{0},
      fragments_created{0}, in_transport_errors{0};
};

class Stack final {
 public:
  // Both outlive the stack.
  Stack(Clock& clock, RandomSource& random);
  // Close() first: no other thread may be inside. Interfaces that others still hold are closed husks.
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  Clock& clock() { return clock_; }
  Time Now() const { return clock_.Now(); }
  RandomSource& random() { return random_; }
  // A packet with loopback addresses may come in on no other interface.
  Interface* loopback() const { return loopback_.load(std::memory_order_acquire); }  // null if there is none
  TimerQueue& timers() { return timers_; }
  RoutingTable& routes() { return routes_; }
  PathMtuCache& path_mtu() { return path_mtu_; }
  PortManager& ports() { return ports_; }
  PacketHooks& hooks() { return hooks_; }
  IpStats& ip_stats(Family family) { return family == Family::kIpv4 ? ipv4_stats_ : ipv6_stats_; }

  // Composition, before the first interface is added.
  void RegisterHandler(std::unique_ptr<PacketHandler> handler);  // ARP
  void RegisterNetwork(std::unique_ptr<NetworkProtocol> protocol);
  void RegisterTransport(std::unique_ptr<TransportProtocol> protocol);
  // nullptr if none is registered.
  NetworkProtocol* network(Family family) const { return family == Family::kIpv4 ? ipv4_ : ipv6_; }
  TransportProtocol* transport(uint8_t number) const { return transports_[number].get(); }

  // Interfaces. Added down and without addresses (loopback too); indices count from 1 and are never used again.
  // EEXIST, EINVAL (name), ENOSPC.
  Result<RefPtr<Interface>> AddInterface(InterfaceConfig config) EXCLUDES(mu_);
  // ENODEV. Its addresses and routes go too.
  Result<> RemoveInterface(uint32_t index) EXCLUDES(mu_);
  RefPtr<Interface> FindInterface(uint32_t index) const EXCLUDES(mu_);  // null if there is none
  RefPtr<Interface> FindInterface(std::string_view name) const EXCLUDES(mu_);
  std::vector<RefPtr<Interface>> Interfaces() const EXCLUDES(mu_);

  // Is it an address of this host that is in use (on any interface: the weak model of RFC 1122 section 3.3.4.2)?
  bool IsLocal(const Address& address) const EXCLUDES(local_mu_);
  // ENETUNREACH, EHOSTUNREACH (an unreachable route), EACCES, EADDRNOTAVAIL (request.local is not ours), ENODEV,
  // EINVAL.
  Result<Route> FindRoute(const RouteRequest& request);

  // Forwarding of packets for others (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding); off at first.
  bool forwarding(Family family) const { return forwarding_[family == Family::kIpv6].load(std::memory_order_relaxed); }
  void SetForwarding(Family family, bool on) { forwarding_[family == Family::kIpv6].store(on); }
  // net.ipv4.ip_default_ttl and net.ipv6.conf.all.hop_limit.
  uint8_t default_ttl() const { return default_ttl_.load(std::memory_order_relaxed); }
  void SetDefaultTtl(uint8_t ttl) { default_ttl_.store(ttl); }

  // From a network protocol: a packet for this host. Copies go to the raw taps first; then to the transport, and an
  // ICMP error goes back if there is none.
  void DeliverTransport(Interface& interface, PacketPtr packet);
  // Gives a received packet's copies to the raw taps of its protocol; true if there was one.
  bool TapRaw(const Packet& packet) EXCLUDES(taps_mu_);
  // From ICMP: an error about a packet with `protocol` that we sent; `quoted` begins at its transport header.
  void DeliverError(uint8_t protocol, const Address& local, const Address& remote, const TransportError& error,
                    std::span<const std::byte> quoted);

  // Taps: all received packets of one IP protocol (raw sockets), or all frames (packet sockets; ethertype ETH_P_ALL or
  // one, interface index or 0).
  void AddRawTap(Family family, uint8_t protocol, RefPtr<PacketTap> tap) EXCLUDES(taps_mu_);
  void RemoveRawTap(const PacketTap& tap) EXCLUDES(taps_mu_);
  void AddFrameTap(uint16_t ethertype, uint32_t interface_index, RefPtr<PacketTap> tap) EXCLUDES(taps_mu_);
  void RemoveFrameTap(const PacketTap& tap) EXCLUDES(taps_mu_);

  // What changed, for netlink's RTNLGRP_* groups. Called with no lock held. Set before the first interface is added.
  enum class Change : uint8_t { kLinkAdded, kLinkChanged, kLinkRemoved, kAddressAdded, kAddressRemoved };
  void SetChangeHook(std::function<void(Change, Interface&, const InterfaceAddress*)> hook) {
    change_hook_ = std::move(hook);
  }
  // The same of neighbours (RTNLGRP_NEIGH), a little later.
  void SetNeighbourHook(std::function<void(bool removed, Interface&, const NeighbourInfo&)> hook) {
    neighbour_hook_ = std::move(hook);
  }

  // Takes all interfaces down and tells the transports to let go.
  void Close();

  // Changes when a look-up could now be answered otherwise.
  uint32_t routing_generation() const {
    return routes_.generation() + address_generation_.load(std::memory_order_acquire);
  }

 private:
  friend class Interface;
  friend class Route;

  struct RawTap {
    Family family;
    uint8_t protocol;
    RefPtr<PacketTap> tap;
  };
  struct FrameTap {
    uint16_t ethertype;
    uint32_t interface_index;
    RefPtr<PacketTap> tap;
  };

  // For Interface.
  void AddLocal(const Address& address, Interface& interface) EXCLUDES(local_mu_);
  void RemoveLocal(const Address& address, Interface& interface) EXCLUDES(local_mu_);
  void DeliverFrame(Interface& interface, PacketPtr packet);
  void TapFrame(const Packet& packet, const PacketTap* except) EXCLUDES(taps_mu_);
  void Changed(Change change, Interface& interface, const InterfaceAddress* address = nullptr);
  bool has_frame_taps() const { return frame_tap_count_.load(std::memory_order_relaxed) != 0; }
  Address ChooseSourceLocked(const Address& remote, const Interface& out) const REQUIRES(mu_);
  Interface* FindLocked(uint32_t index) const REQUIRES(mu_);
  Interface* OwnerOfLocked(const Address& address) const REQUIRES(mu_);

  Clock& clock_;
  RandomSource& random_;
  TimerQueue timers_;
  RoutingTable routes_;
  PathMtuCache path_mtu_;
  PortManager ports_;
  PacketHooks hooks_;
  IpStats ipv4_stats_, ipv6_stats_;
  std::atomic<bool> forwarding_[2] = {false, false};
  std::atomic<uint8_t> default_ttl_{64};
  std::atomic<uint32_t> address_generation_{0};

  std::vector<std::unique_ptr<PacketHandler>> handlers_;  // constant once interfaces exist
  NetworkProtocol* ipv4_ = nullptr;
  NetworkProtocol* ipv6_ = nullptr;
  std::array<std::unique_ptr<TransportProtocol>, 256> transports_;
  std::function<void(Change, Interface&, const InterfaceAddress*)> change_hook_;
  std::function<void(bool, Interface&, const NeighbourInfo&)> neighbour_hook_;

  mutable sync::Mutex mu_;
  std::vector<RefPtr<Interface>> interfaces_ GUARDED_BY(mu_);
  uint32_t next_index_ GUARDED_BY(mu_) = 1;
  std::atomic<Interface*> loopback_{nullptr};  // the first one added; it is never destroyed before the stack

  mutable sync::Mutex local_mu_;
  std::unordered_multimap<Address, Interface*, AddressHash> local_ GUARDED_BY(local_mu_);

  mutable sync::Mutex taps_mu_;
  std::vector<RawTap> raw_taps_ GUARDED_BY(taps_mu_);
  std::vector<FrameTap> frame_taps_ GUARDED_BY(taps_mu_);
  std::atomic<uint32_t> frame_tap_count_{0};
  std::atomic<uint32_t> raw_tap_count_{0};
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_STACK_STACK_H_
