// A packet on its way through the stack, and the pool it comes from.
#ifndef REDOUBT_PKG_NETSTACK_PACKET_PACKET_H_
#define REDOUBT_PKG_NETSTACK_PACKET_PACKET_H_

#include <boost/intrusive/slist.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/buffer/buffer.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/packet/offload.h"
#include "pkg/netstack/packet/stamp.h"

namespace redoubt::netstack {

class Interface;

// Who the link layer says a frame was for; the values of sockaddr_ll's sll_pkttype (man 7 packet).
enum class PacketType : uint8_t { kHost = 0, kBroadcast = 1, kMulticast = 2, kOtherHost = 3, kOutgoing = 4 };

// One frame or datagram: bytes, and what each layer has learned of them. Owned by whoever is working on it, through a
// PacketPtr; never shared (Buffer::Clone shares the bytes). `data` begins at the link header while a link endpoint has
// it, and at the network header once the interface has taken the link header off; it stays there, and the offsets below
// say where the rest begins. No bytes but those named by a parser are checked.
struct Packet : boost::intrusive::slist_base_hook<> {
  Buffer data;

  // Received packets: the interface that delivered it, alive during the delivery only, and its index for later.
  Interface* interface = nullptr;
  uint32_t interface_index = 0;
  PacketType type = PacketType::kHost;
  uint16_t ethertype = 0;  // host order, ETH_P_*
  LinkAddress link_source;
  LinkAddress link_destination;

  // Set by the network layer.
  Address source;
  Address destination;
  uint8_t protocol = 0;           // IPPROTO_* of the transport header
  uint8_t ttl = 0;                // or hop limit
  uint8_t traffic_class = 0;      // TOS byte: DSCP and ECN
  uint32_t flow_label = 0;        // IPv6
  uint16_t transport_offset = 0;  // bytes from the start of `data` to the transport header
  // Of an IPv4 packet with options, bytes of them; they stand before transport_offset.
  uint8_t options_length = 0;
  bool router_alert = false;
  uint16_t source_port = 0;  // host order; UDP's, for the reader of a receive queue
  bool peeked = false;       // in a receive queue: MSG_PEEK has shown it
  // Of a frame at a packet endpoint: before a filter left less in `data`, and its interface's ARPHRD_*.
  uint32_t whole_size = 0;
  uint16_t hardware_type = 0;

  Offload offload;
  Time received = 0;   // on the stack's clock
  StampRequest stamp;  // of a packet sent; its copies do not have it

  size_t transport_length() const { return data.size() - transport_offset; }
};

struct PacketDeleter {
  void operator()(Packet* packet) const;
};
using PacketPtr = std::unique_ptr<Packet, PacketDeleter>;

// A packet with all fields as above, from a bounded free list (no allocation on the steady path). Thread-safe.
PacketPtr NewPacket();
PacketPtr NewPacket(Buffer data);
// Another packet with the same fields, sharing the bytes.
PacketPtr ClonePacket(const Packet& packet);

// Packets in order, owned. Not thread-safe.
class PacketList final {
 public:
  PacketList() = default;
  PacketList(PacketList&& o) noexcept { list_.swap(o.list_); }
  PacketList& operator=(PacketList&& o) noexcept {
    list_.swap(o.list_);
    return *this;
  }
  ~PacketList() { Clear(); }

  void PushBack(PacketPtr packet) { list_.push_back(*packet.release()); }
  // Null if there is none.
  PacketPtr PopFront() {
    if (list_.empty()) return nullptr;
    Packet* p = &list_.front();
    list_.pop_front();
    return PacketPtr(p);
  }
  const Packet& front() const { return list_.front(); }
  Packet& front() { return list_.front(); }
  auto begin() { return list_.begin(); }
  auto end() { return list_.end(); }
  bool empty() const { return list_.empty(); }
  size_t size() const { return list_.size(); }
  void Clear() {
    while (PopFront() != nullptr) {
    }
  }

 private:
  boost::intrusive::slist<Packet, boost::intrusive::cache_last<true>> list_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_PACKET_PACKET_H_
