// What the link does for the transport: checksums and segmentation, as virtio-net describes them (virtio 1.2
// section 5.1.6).
#ifndef REDOUBT_PKG_NETSTACK_PACKET_OFFLOAD_H_
#define REDOUBT_PKG_NETSTACK_PACKET_OFFLOAD_H_

#include <cstdint>

namespace redoubt::netstack {

enum class ChecksumState : uint8_t {
  // Received: not looked at, the transport must. Sent: complete.
  kComplete,
  // Received: the link vouches for it (or it never left this machine); the transport need not look.
  kVerified,
  // Sent: the checksum field, `checksum_offset` bytes into the transport header, holds the sum of the pseudo header
  // (not
  // complemented); the link, or the stack if the link cannot, completes it. Received: as sent by another guest of the
  // same host; counts as verified.
  kPartial,
};

enum class GsoKind : uint8_t {
  kNone,
  kTcpV4,
  kTcpV6,
  // Received, or sent on a loopback: several datagrams of one flow behind one header, each of `segment_size` bytes of
  // payload but the last (UDP_SEGMENT, man 7 udp).
  kUdp,
};

struct Offload {
  ChecksumState checksum = ChecksumState::kComplete;
  uint8_t checksum_offset = 0;  // kPartial only: 16 for TCP, 6 for UDP
  GsoKind gso = GsoKind::kNone;
  // With GSO: payload bytes per segment, and bytes of the transport header (20-60 for TCP).
  uint16_t segment_size = 0;
  uint8_t transport_header_length = 0;
  bool ecn = false;  // the TCP super-segment has CWR set: VIRTIO_NET_HDR_GSO_ECN
};

// What a link endpoint can do, as a set of bits.
using LinkCaps = uint32_t;
inline constexpr LinkCaps kCapTxChecksum = 1 << 0;  // completes ChecksumState::kPartial
inline constexpr LinkCaps kCapRxChecksum = 1 << 1;  // may deliver kVerified
inline constexpr LinkCaps kCapResolution = 1 << 2;  // needs a neighbour's link address (Ethernet)
inline constexpr LinkCaps kCapLoopback = 1 << 3;    // what is sent comes back; nothing leaves the stack
inline constexpr LinkCaps kCapTcpGso = 1 << 4;      // takes TCP super-segments

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_PACKET_OFFLOAD_H_
