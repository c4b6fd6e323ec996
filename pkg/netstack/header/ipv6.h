// The IPv6 header and its extension headers (RFC 8200).
#ifndef REDOUBT_PKG_NETSTACK_HEADER_IPV6_H_
#define REDOUBT_PKG_NETSTACK_HEADER_IPV6_H_

#include <optional>

#include "pkg/netstack/header/bytes.h"

namespace redoubt::netstack::header {

inline constexpr uint8_t kNextHopByHop = 0;
inline constexpr uint8_t kNextRouting = 43;
inline constexpr uint8_t kNextFragment = 44;
inline constexpr uint8_t kNextNone = 59;
inline constexpr uint8_t kNextDestination = 60;

struct Ipv6 {
  static constexpr size_t kSize = 40;
  static constexpr uint32_t kMinMtu = 1280;

  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;
  uint16_t payload_length = 0;
  uint8_t next_header = 0;
  uint8_t hop_limit = 0;
  Address source;
  Address destination;

  // nullopt if the version is not 6 or the payload is longer than the packet. Jumbograms (RFC 2675) are not supported:
  // a payload length of 0 means none.
  static std::optional<Ipv6> Parse(Bytes b, size_t packet_size);
  void Write(MutableBytes out) const;
};

struct Ipv6Fragment {
  static constexpr size_t kSize = 8;
  uint8_t next_header = 0;
  uint16_t offset = 0;  // bytes, a multiple of 8
  bool more = false;
  uint32_t id = 0;

  static std::optional<Ipv6Fragment> Parse(Bytes b);
  void Write(MutableBytes out) const;
};

// What stands between the IPv6 header and the transport header.
struct Ipv6Extensions {
  enum class Verdict : uint8_t {
    kAccept,
    kMalformed,         // dropped silently: cut off
    kDiscard,           // an option says so
    kParameterProblem,  // `code` and `pointer` for ICMPv6
  };
  static constexpr size_t kMaxHeaders = 8;  // more are malformed here: bounds the work a packet can ask for
  static constexpr size_t kMaxOptions = 32;

  Verdict verdict = Verdict::kAccept;
  uint8_t code = 0;               // RFC 4443 section 3.4
  uint32_t pointer = 0;           // from the start of the packet
  bool answer_multicast = false;  // an option of type 10xxxxxx: the error goes out even for a multicast destination
  uint8_t next_header = 0;        // of the transport, or kNextFragment if `fragment` is set
  size_t offset = 0;  // where it begins, from the start of the packet; with a fragment: behind the fragment header
  size_t next_header_at = 0;             // offset of the byte that names `next_header`, for ICMPv6 and for reassembly
  bool router_alert = false;             // RFC 2711
  std::optional<Ipv6Fragment> fragment;  // the walk stops behind the first fragment header
  size_t fragment_at = 0;

  // `packet` is the whole contiguous front of the packet, IPv6 header included, as far as extension headers may reach;
  // `first` is the type of the header at `offset`. Used again behind a fragment header after reassembly.
  static Ipv6Extensions Walk(Bytes packet, uint8_t first, size_t first_at, size_t offset);
};

}  // namespace redoubt::netstack::header

#endif  // REDOUBT_PKG_NETSTACK_HEADER_IPV6_H_
