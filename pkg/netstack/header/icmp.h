// ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443) headers; UDP's (RFC 768); IGMP (RFC 2236, 3376) and MLD (RFC 2710,
// 3810). Checksums are the callers' (pkg/netstack/checksum).
#ifndef REDOUBT_PKG_NETSTACK_HEADER_ICMP_H_
#define REDOUBT_PKG_NETSTACK_HEADER_ICMP_H_

#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include <optional>

#include "pkg/netstack/header/bytes.h"

namespace redoubt::netstack::header {

// Both versions: type, code, checksum, and four bytes whose meaning depends on the type.
struct Icmp {
  static constexpr size_t kSize = 8;
  uint8_t type = 0;
  uint8_t code = 0;
  uint16_t checksum = 0;
  uint32_t rest = 0;

  uint16_t echo_id() const { return static_cast<uint16_t>(rest >> 16); }
  uint16_t echo_sequence() const { return static_cast<uint16_t>(rest); }

  static std::optional<Icmp> Parse(Bytes b);
  void Write(MutableBytes out) const;
};

// True for the types that report an error, about which no further error may be sent.
bool IsIcmpV4Error(uint8_t type);
inline bool IsIcmpV6Error(uint8_t type) { return type < 128; }

struct Udp {
  static constexpr size_t kSize = 8;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint16_t length = 0;  // header included
  uint16_t checksum = 0;

  // nullopt if the length is below 8 or above `datagram_size`.
  static std::optional<Udp> Parse(Bytes b, size_t datagram_size);
  void Write(MutableBytes out) const;
};

struct Igmp {
  static constexpr size_t kSize = 8;
  static constexpr uint8_t kQuery = 0x11;
  static constexpr uint8_t kReportV1 = 0x12;
  static constexpr uint8_t kReportV2 = 0x16;
  static constexpr uint8_t kLeave = 0x17;
  static constexpr uint8_t kReportV3 = 0x22;
  uint8_t type = 0;
  uint8_t max_response = 0;  // tenths of a second; v3: a code (MaxResponseCode)
  Address group;

  static std::optional<Igmp> Parse(Bytes b);
  void Write(MutableBytes out) const;  // checksum 0
};

struct Mld {
  static constexpr size_t kSize = 24;
  uint8_t type = 0;
  uint16_t max_response = 0;  // milliseconds; v2: a code
  Address group;

  static std::optional<Mld> Parse(Bytes b);
  void Write(MutableBytes out) const;  // checksum 0
};

// RFC 3376 section 4.1.1 (8 bits), RFC 3810 section 5.1.3 (16 bits): a small floating-point number.
uint32_t DecodeIgmpV3Code(uint8_t code);
uint32_t DecodeMldV2Code(uint16_t code);

}  // namespace redoubt::netstack::header

#endif  // REDOUBT_PKG_NETSTACK_HEADER_ICMP_H_
