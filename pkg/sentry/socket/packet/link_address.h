// Private to packet: what is said of a frame beside its bytes.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_PACKET_LINK_ADDRESS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_PACKET_LINK_ADDRESS_H_

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/packet/packet.h"

namespace redoubt::packetsock {

// sockaddr_ll of who has sent it. `frame` is from a PacketEndpoint, which has noted the kind of its interface.
inline sockaddr_ll LinkName(const netstack::Packet& frame) {
  sockaddr_ll name{};
  name.sll_family = AF_PACKET;
  name.sll_protocol = htons(frame.ethertype);
  name.sll_ifindex = static_cast<int>(frame.interface_index);
  name.sll_hatype = frame.hardware_type;
  name.sll_pkttype = static_cast<uint8_t>(frame.type);
  name.sll_halen = ETH_ALEN;
  std::memcpy(name.sll_addr, frame.link_source.bytes.data(), ETH_ALEN);
  return name;
}

// TP_STATUS_CSUM*: whether the transport's checksum is there, and known to be good.
inline uint32_t ChecksumStatus(const netstack::Packet& frame) {
  switch (frame.offload.checksum) {
    case netstack::ChecksumState::kPartial:
      return TP_STATUS_CSUMNOTREADY;
    case netstack::ChecksumState::kVerified:
      return frame.type != netstack::PacketType::kOutgoing ? TP_STATUS_CSUM_VALID : 0;
    case netstack::ChecksumState::kComplete:
      return 0;
  }
  return 0;
}

}  // namespace redoubt::packetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_PACKET_LINK_ADDRESS_H_
