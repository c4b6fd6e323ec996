// The IPv4 header (RFC 791) and its options.
#ifndef REDOUBT_PKG_NETSTACK_HEADER_IPV4_H_
#define REDOUBT_PKG_NETSTACK_HEADER_IPV4_H_

#include <optional>

#include "pkg/netstack/header/bytes.h"

namespace redoubt::netstack::header {

struct Ipv4 {
  static constexpr size_t kMinSize = 20;
  static constexpr size_t kMaxSize = 60;
  static constexpr uint32_t kMinMtu = 68;

  uint8_t header_length = kMinSize;  // bytes, options included
  uint8_t traffic_class = 0;
  uint16_t total_length = 0;
  uint16_t id = 0;
  bool dont_fragment = false;
  bool more_fragments = false;
  uint16_t fragment_offset = 0;  // bytes, a multiple of 8
  uint8_t ttl = 0;
  uint8_t protocol = 0;
  uint16_t checksum = 0;
  Address source;
  Address destination;

  bool is_fragment() const { return more_fragments || fragment_offset != 0; }

  // `b` begins at the header and may go on behind the packet (padding). nullopt if the version is not 4, or the header
  // or the packet is longer than `packet_size`, or lengths contradict each other. Does not verify the checksum.
  static std::optional<Ipv4> Parse(Bytes b, size_t packet_size);
  // The fixed 20 bytes with the checksum field as it stands here.
  void Write(MutableBytes out) const;
};

// What the options of one packet ask for. Offsets are from the start of the options.
struct Ipv4Options {
  bool router_alert = false;  // RFC 2113
  bool source_route = false;  // RFC 791; packets with it are dropped (RFC 7126 sections 4.3, 4.4)
  int record_route_at = -1;   // RFC 791; -1: none
  int timestamp_at = -1;

  // nullopt if malformed, and then `error_at` is where a parameter problem points to.
  static std::optional<Ipv4Options> Parse(Bytes options, size_t& error_at);
};

// Options as they go into all fragments but the first: those with the copied flag (RFC 791 section 3.1), padded with
// zeros to a multiple of 4. Returns how many bytes of `out` (40 suffice) are used.
size_t CopiedOptions(Bytes options, MutableBytes out);

}  // namespace redoubt::netstack::header

#endif  // REDOUBT_PKG_NETSTACK_HEADER_IPV4_H_
