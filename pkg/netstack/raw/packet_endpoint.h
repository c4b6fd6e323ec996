// AF_PACKET without descriptor (man 7 packet): whole frames, as they go over interfaces.
#ifndef REDOUBT_PKG_NETSTACK_RAW_PACKET_ENDPOINT_H_
#define REDOUBT_PKG_NETSTACK_RAW_PACKET_ENDPOINT_H_

#include <atomic>
#include <memory>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/netstack/transport/datagram_endpoint.h"

namespace redoubt::netstack {

// Takes frames in place of the receive queue: PACKET_RX_RING. Thread-safe, called with no lock held.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // `frame` is as a reader of the queue would get it; `network` says where in it the network header is. False: no room.
  virtual bool Take(const Packet& frame, size_t network) = 0;
};

class FanoutGroup;
class FanoutGroups;
struct FanoutRule;

// Received packets keep link addresses, type (PACKET_HOST, ...), EtherType, interface index and whole size in their
// fields: sockaddr_ll. Super-segments, and checksums that the link is to fill in, are shown as they are handed to the
// link, as by Linux. What it sends itself it does not see.
class PacketEndpoint final : public DatagramEndpoint {
 public:
  static constexpr size_t kMaxMemberships = 64;

  enum class Kind : uint8_t { kRaw, kCooked };  // SOCK_RAW: with the link header; SOCK_DGRAM: without
  static RefPtr<PacketEndpoint> Create(Stack& stack, Kind kind);

  // From now on frames of one EtherType (ETH_P_ALL: all, 0: none) of one interface (0: all). ENODEV; of an interface
  // that is down, ENETDOWN becomes the pending error.
  Result<> Bind(uint16_t ethertype, uint32_t interface_index) EXCLUDES(mu_);
  // kRaw: a whole frame. kCooked: a network packet to `link` with `ethertype`. ENXIO (no such interface), ENETDOWN,
  // EMSGSIZE, EINVAL.
  Result<size_t> Send(Buffer data, uint32_t interface_index, const LinkAddress& link = {}, uint16_t ethertype = 0)
      EXCLUDES(mu_);
  void Close() EXCLUDES(mu_);

  Kind kind() const { return kind_; }
  uint16_t ethertype() const EXCLUDES(mu_);
  uint32_t interface_index() const EXCLUDES(mu_);

  // PACKET_IGNORE_OUTGOING.
  void IgnoreOutgoing(bool on) { ignore_outgoing_.store(on, std::memory_order_relaxed); }
  bool ignores_outgoing() const { return ignore_outgoing_.load(std::memory_order_relaxed); }
  // PACKET_FANOUT: from now on it shares frames with the others of the group of that number in `groups`, which outlives
  // it. `rule`'s ethertype and interface are filled in here. EINVAL (another rule's, not bound), EALREADY, ENOSPC. What
  // it then sends, others of its group may see. A member cannot be bound again (EINVAL).
  Result<> JoinFanout(FanoutGroups& groups, uint16_t number, FanoutRule rule) EXCLUDES(mu_);
  // Null: into the queue again. What is queued is dropped.
  void SetSink(std::shared_ptr<FrameSink> sink) EXCLUDES(mu_);
  // Since the last call: PACKET_STATISTICS.
  struct Statistics {
    uint32_t received = 0;
    uint32_t dropped = 0;  // not among those
  };
  Statistics TakeStatistics();

  // PACKET_ADD_MEMBERSHIP and PACKET_DROP_MEMBERSHIP. Frames for groups come in anyway; kPromiscuous brings those for
  // other hosts. Counted. ENODEV, ENOBUFS; dropping one that is not there is nothing, as in Linux.
  enum class Wish : uint8_t { kMulticast, kPromiscuous, kAllMulticast, kUnicast };
  Result<> AddMembership(uint32_t interface_index, Wish wish, const LinkAddress& address) EXCLUDES(mu_);
  void DropMembership(uint32_t interface_index, Wish wish, const LinkAddress& address) EXCLUDES(mu_);

 private:
  class Tap;
  struct Membership {
    uint32_t interface_index = 0;
    Wish wish = Wish::kMulticast;
    LinkAddress address;
    uint32_t count = 0;
  };
  PacketEndpoint(Stack& stack, Kind kind);
  ~PacketEndpoint() override;
  template <typename T, typename... Args>
  friend RefPtr<T> redoubt::MakeRef(Args&&... args);
  void Handle(const Packet& packet) EXCLUDES(mu_);
  void Accept(const Packet& packet) EXCLUDES(mu_);
  void LeavePromiscuity(uint32_t interface_index);

  const Kind kind_;
  RefPtr<PacketTap> tap_ GUARDED_BY(mu_);
  uint16_t ethertype_ GUARDED_BY(mu_) = 0;
  uint32_t interface_index_ GUARDED_BY(mu_) = 0;
  std::shared_ptr<FrameSink> sink_ GUARDED_BY(mu_);
  std::vector<Membership> wishes_ GUARDED_BY(mu_);
  RefPtr<FanoutGroup> fanout_ GUARDED_BY(mu_);
  FanoutGroups* fanout_groups_ GUARDED_BY(mu_) = nullptr;
  uint16_t fanout_number_ GUARDED_BY(mu_) = 0;
  std::atomic<bool> shares_{false};
  std::atomic<bool> ignore_outgoing_{false};
  std::atomic<uint32_t> received_{0}, dropped_{0};
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_RAW_PACKET_ENDPOINT_H_
