// Neighbour discovery messages (RFC 4861 section 4) behind the four-byte ICMPv6 header.
#ifndef REDOUBT_PKG_NETSTACK_HEADER_NDP_H_
#define REDOUBT_PKG_NETSTACK_HEADER_NDP_H_

#include <array>
#include <optional>

#include "pkg/netstack/header/bytes.h"

namespace redoubt::netstack::header {

struct NdpPrefix {  // RFC 4861 section 4.6.2; seconds, 0xffffffff for ever
  Prefix prefix;
  bool on_link = false;
  bool autonomous = false;
  uint32_t valid_lifetime = 0;
  uint32_t preferred_lifetime = 0;
};

// The options we know of one message; others are skipped.
struct NdpOptions {
  static constexpr size_t kMaxPrefixes = 8;  // of one message; more are ignored
  std::optional<LinkAddress> source_link;
  std::optional<LinkAddress> target_link;
  uint32_t mtu = 0;  // 0: none
  std::array<NdpPrefix, kMaxPrefixes> prefixes{};
  size_t prefix_count = 0;
  bool has_nonce = false;  // RFC 3971 section 5.3.2
  std::array<uint8_t, 6> nonce{};

  // nullopt if an option has length 0 or reaches beyond the end: then the whole message is to be dropped (section 6.1).
  static std::optional<NdpOptions> Parse(Bytes options);
};

// Solicitation (135) and advertisement (136): 24 bytes from the type on, then options.
struct NdpNeighbour {
  static constexpr size_t kSize = 24;
  uint8_t type = 0;
  bool router = false, solicited = false, override = false;  // advertisements only
  Address target;
  NdpOptions options;

  static std::optional<NdpNeighbour> Parse(Bytes message);
  // Writes it with a link address option if `link` is set (source for solicitations, target for advertisements),
  // checksum 0, and a nonce (RFC 7527) if `nonce` is. Returns the length, at most 40. `out` has 40 bytes.
  size_t Write(MutableBytes out, const std::optional<LinkAddress>& link,
               const std::optional<std::array<uint8_t, 6>>& nonce = {}) const;
};

// Router advertisement (134): 16 bytes, then options.
struct NdpRouterAdvertisement {
  static constexpr size_t kSize = 16;
  uint8_t hop_limit = 0;  // 0: unspecified
  bool managed = false, other = false;
  uint16_t lifetime = 0;          // seconds; 0: no default router
  uint32_t reachable_time = 0;    // milliseconds; 0: unspecified
  uint32_t retransmit_timer = 0;  // milliseconds; 0: unspecified
  NdpOptions options;

  static std::optional<NdpRouterAdvertisement> Parse(Bytes message);
};

}  // namespace redoubt::netstack::header

#endif  // REDOUBT_PKG_NETSTACK_HEADER_NDP_H_
