// Ethernet II (IEEE 802.3 clause 3) and ARP for IPv4 over Ethernet (RFC 826).
#ifndef REDOUBT_PKG_NETSTACK_HEADER_LINK_H_
#define REDOUBT_PKG_NETSTACK_HEADER_LINK_H_

#include <optional>

#include "pkg/netstack/header/bytes.h"

namespace redoubt::netstack::header {

inline constexpr uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr uint16_t kEtherTypeArp = 0x0806;
inline constexpr uint16_t kEtherTypeIpv6 = 0x86dd;
inline constexpr uint16_t kEtherTypeAll = 0x0003;  // ETH_P_ALL, man 7 packet

struct Ethernet {
  static constexpr size_t kSize = 14;
  LinkAddress destination;
  LinkAddress source;
  uint16_t ethertype = 0;  // below 0x600 it is an 802.3 length, and no packet for us

  static std::optional<Ethernet> Parse(Bytes b);
  void Write(MutableBytes out) const;  // at least kSize bytes
};

struct Arp {
  static constexpr size_t kSize = 28;
  static constexpr uint16_t kRequest = 1;
  static constexpr uint16_t kReply = 2;
  uint16_t operation = 0;
  LinkAddress sender_link;
  Address sender;
  LinkAddress target_link;
  Address target;

  // nullopt unless it is IPv4 over Ethernet, a request or reply, from a unicast link address.
  static std::optional<Arp> Parse(Bytes b);
  void Write(MutableBytes out) const;  // at least kSize bytes
};

}  // namespace redoubt::netstack::header

#endif  // REDOUBT_PKG_NETSTACK_HEADER_LINK_H_
