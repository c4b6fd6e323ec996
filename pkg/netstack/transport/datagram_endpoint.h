// What UDP, raw, ping and packet endpoints have in common: options, a bounded receive queue, errors, readiness, groups.
#ifndef REDOUBT_PKG_NETSTACK_TRANSPORT_DATAGRAM_ENDPOINT_H_
#define REDOUBT_PKG_NETSTACK_TRANSPORT_DATAGRAM_ENDPOINT_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "pkg/bpf/bpf.h"
#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/address/socket_address.h"
#include "pkg/netstack/packet/packet.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/transport/memberships.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::netstack {

// Socket options that decide how packets look and where they go (man 7 socket, ip, ipv6).
struct DatagramOptions {
  uint32_t bound_interface = 0;  // SO_BINDTODEVICE
  bool broadcast = false;        // SO_BROADCAST
  uint8_t ttl = 0;               // IP_TTL, IPV6_UNICAST_HOPS; 0: the stack's default
  uint8_t traffic_class = 0;     // IP_TOS, IPV6_TCLASS
  uint8_t multicast_ttl = 1;
  bool multicast_loop = true;
  uint32_t multicast_interface = 0;  // IP_MULTICAST_IF, IPV6_MULTICAST_IF
  Address multicast_source;          // IP_MULTICAST_IF by address
  bool multicast_all = true;         // IP_MULTICAST_ALL: also groups that others on this host have joined
  bool dont_fragment = false;        // IP_MTU_DISCOVER: IP_PMTUDISC_DO, IP_PMTUDISC_PROBE
  uint8_t mtu_discover = 1;          // IP_MTU_DISCOVER as it was given; IP_PMTUDISC_WANT
  bool receive_errors = false;       // IP_RECVERR
  bool v6_only = false;
  ForeignAddresses foreign = {};
  bool reuse_address = false;
  bool reuse_port = false;
  uint32_t owner = 0;              // user id, for reuse_port
  size_t receive_buffer = 212992;  // SO_RCVBUF: bytes of memory held by the queue
  // UDP_SEGMENT: the payload of each of the datagrams that one Send makes; 0: it makes one.
  uint16_t segment_size = 0;
  bool join_segments = false;  // UDP_GRO: several datagrams of a flow may be received as one, see Packet::offload
  // SO_TIMESTAMPING: of what is sent. `number_stamps`: by OPT_ID; else all keys are 0.
  StampPlaces stamps = 0;
  bool number_stamps = false;
  bool stamps_have_frames = true;  // not OPT_TSONLY
};

// What a message says of itself alone (man 7 ip, ipv6: ancillary data).
struct SendOptions {
  Address local;                 // where it is from; none: as the endpoint says
  uint32_t interface_index = 0;  // where it leaves; 0: as the endpoint says
  std::optional<uint8_t> ttl, traffic_class;
  std::optional<StampPlaces> stamps;
  std::optional<uint16_t> segment_size;
};

// One entry of the error queue (MSG_ERRQUEUE).
struct QueuedError {
  TransportError error;
  SocketAddress destination;
};

// Thread-safe. Never blocks: Receive answers EAGAIN, and `waiters` tells when to try again.
class DatagramEndpoint : public RefCounted, private StampReceiver {
 public:
  static constexpr size_t kMaxErrors = 64;

  waiter::Queue& waiters() { return waiters_; }
  // Level of poll(2)'s events, exactly.
  waiter::EventMask Readiness() const EXCLUDES(mu_);

  DatagramOptions options() const EXCLUDES(mu_);
  void SetOptions(const DatagramOptions& options) EXCLUDES(mu_);

  // The next datagram; its data is what the reader gets. EAGAIN; a pending error once; null after Shutdown for reading
  // (end of file).
  Result<PacketPtr> Receive(bool peek = false) EXCLUDES(mu_);
  // SO_PEEK_OFF: a copy of the datagram that has the byte behind `offset`, which becomes its place in it. An empty one
  // counts until it has been seen. Results as Receive.
  Result<PacketPtr> PeekBehind(size_t& offset) EXCLUDES(mu_);
  // SO_ERROR: the pending error, cleared; 0 if none.
  int TakeError() EXCLUDES(mu_);
  std::optional<QueuedError> TakeQueuedError() EXCLUDES(mu_);
  // The stamps of what was sent, in the same queue to the reader. They are numbered from 0 again after the second.
  std::optional<Stamp> TakeStamp() EXCLUDES(mu_);
  void RestartStampNumbers() EXCLUDES(mu_);
  size_t ReceiveQueueBytes() const EXCLUDES(mu_);  // of the next datagram: FIONREAD
  uint64_t dropped() const EXCLUDES(mu_);          // because the queue was full (SO_RXQ_OVFL)

  // SO_ATTACH_FILTER: what the reader gets from now on; null: all.
  void SetFilter(std::shared_ptr<const bpf::Program> filter) EXCLUDES(mu_);

  // IP_ADD_MEMBERSHIP and its kin. EADDRINUSE, EADDRNOTAVAIL, ENODEV, ENOBUFS, EINVAL.
  Result<> JoinGroup(const Address& group, uint32_t interface_index, SourceMode mode = SourceMode::kExclude)
      EXCLUDES(mu_);
  Result<> LeaveGroup(const Address& group, uint32_t interface_index) EXCLUDES(mu_);
  // Source filters: IP_BLOCK_SOURCE and its kin, IP_MSFILTER. Errors of Memberships; EINVAL, ENODEV. An endpoint that
  // includes nothing any more leaves the group.
  Result<> ChangeSource(const Address& group, uint32_t interface_index, const Address& source, SourceMode mode,
                        Memberships::Change change) EXCLUDES(mu_);
  Result<> SetSourceFilter(const Address& group, uint32_t interface_index, SourceFilter filter) EXCLUDES(mu_);
  Result<SourceFilter> GetSourceFilter(const Address& group, uint32_t interface_index) EXCLUDES(mu_);
  // Whether a packet to a group that came by the interface is for the reader.
  bool TakesMulticast(const Address& group, uint32_t interface_index, const Address& source) const EXCLUDES(mu_);

 protected:
  explicit DatagramEndpoint(Stack& stack) : stack_(stack), mu_(sync::Rank::kNetEndpoint) {}

  // Puts a datagram into the queue and wakes readers; false if it was full.
  bool Enqueue(PacketPtr packet) EXCLUDES(mu_);
  // Where a filter finds things in a packet's data.
  struct FilterPlaces {
    size_t data = 0;             // what the filter is about
    size_t network = 0;          // the network header
    std::optional<size_t> link;  // the link header, if it is still there
  };
  // How many bytes from places.data on the filter leaves: 0: the packet is lost, more than there are: all.
  size_t Filter(const Packet& packet, const FilterPlaces& places) const EXCLUDES(mu_) {
    if (!filtered_.load(std::memory_order_relaxed)) return SIZE_MAX;
    return RunFilter(packet, places);
  }
  // Remembers an error and wakes everybody. `pending` says whether it also becomes SO_ERROR.
  void ReportError(const TransportError& error, const SocketAddress& destination, bool pending) EXCLUDES(mu_);
  void LeaveAllGroups() EXCLUDES(mu_);
  // The route for one destination by the options; kept for the next time.
  Result<Route> FindRouteLocked(const SocketAddress& to, const Address& local, const SendOptions& own = {})
      REQUIRES(mu_);
  WriteOptions WriteOptionsLocked(const Route& route, uint8_t protocol, const SendOptions& own = {}) REQUIRES(mu_);
  // The interface a membership is meant for; 0 means that which leads to the group.
  Result<RefPtr<Interface>> GroupInterface(const Address& group, uint32_t interface_index);

  bool TakesMulticastLocked(const Address& group, uint32_t interface_index, const Address& source) const REQUIRES(mu_);

  Stack& stack_;
  waiter::Queue waiters_;
  mutable sync::Mutex mu_;
  DatagramOptions options_ GUARDED_BY(mu_);
  bool read_shutdown_ GUARDED_BY(mu_) = false;
  bool write_shutdown_ GUARDED_BY(mu_) = false;
  bool closed_ GUARDED_BY(mu_) = false;

 private:
  void Stamped(StampPlace place, uint32_t key, const Packet& frame, size_t link_header) override EXCLUDES(mu_);
  size_t RunFilter(const Packet& packet, const FilterPlaces& places) const EXCLUDES(mu_);

  PacketList queue_ GUARDED_BY(mu_);
  size_t queued_bytes_ GUARDED_BY(mu_) = 0;
  uint64_t dropped_ GUARDED_BY(mu_) = 0;
  int error_ GUARDED_BY(mu_) = 0;
  std::vector<QueuedError> errors_ GUARDED_BY(mu_);
  StampQueue stamps_ GUARDED_BY(mu_);
  uint32_t next_stamp_ GUARDED_BY(mu_) = 0;
  Memberships memberships_ GUARDED_BY(mu_);
  std::atomic<bool> filtered_{false};
  std::shared_ptr<const bpf::Program> filter_ GUARDED_BY(mu_);
  // The last route and what it was found for.
  Route route_ GUARDED_BY(mu_);
  RouteRequest route_request_ GUARDED_BY(mu_);
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_TRANSPORT_DATAGRAM_ENDPOINT_H_
