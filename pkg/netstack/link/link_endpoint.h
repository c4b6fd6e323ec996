// The seam at which links plug in: what carries frames for an interface.
#ifndef REDOUBT_PKG_NETSTACK_LINK_LINK_ENDPOINT_H_
#define REDOUBT_PKG_NETSTACK_LINK_LINK_ENDPOINT_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/packet/offload.h"
#include "pkg/netstack/packet/packet.h"

namespace redoubt::netstack {

// Takes what a link receives. Thread-safe.
class LinkDispatcher {
 public:
  virtual ~LinkDispatcher() = default;
  // A frame, its link header in front, if the link has one; else `ethertype` is set.
  virtual void DeliverFrame(PacketPtr frame) = 0;
  // Several that came together, in order.
  virtual void DeliverFrames(PacketList frames) {
    while (PacketPtr p = frames.PopFront()) DeliverFrame(std::move(p));
  }
};

// A link. Thread-safe. Owned by its interface (a link may own the one beneath it, as the sniffer does).
class LinkEndpoint {
 public:
  virtual ~LinkEndpoint() = default;

  // Bytes of the largest network packet, link header excluded.
  virtual uint32_t mtu() const = 0;
  virtual LinkCaps caps() const = 0;
  // Bytes of the largest network packet with GSO; 0 without kCapTcpGso.
  virtual uint32_t gso_max() const { return 0; }
  // Bytes of link header in front of each frame: 14 (Ethernet) or 0.
  virtual size_t header_size() const = 0;
  // Of the interface; unspecified on links without addresses.
  virtual LinkAddress address() const { return {}; }
  // ARPHRD_* (linux/if_arp.h).
  virtual uint16_t hardware_type() const = 0;

  // Where received frames go from now on. nullptr detaches: none is delivered that comes in after it has returned. A
  // delivery that runs on another thread may still be finishing: whoever calls into a link keeps its interface alive.
  virtual void Attach(LinkDispatcher* dispatcher) = 0;
  // Sends frames in order; those that do not fit into the link's queue are dropped. Returns how many were taken. Called
  // with no lock held.
  virtual size_t Write(PacketList frames) = 0;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_LINK_LINK_ENDPOINT_H_
