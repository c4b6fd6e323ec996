// IP and link-layer addresses, prefixes and their scopes, as values.
#ifndef REDOUBT_PKG_NETSTACK_ADDRESS_ADDRESS_H_
#define REDOUBT_PKG_NETSTACK_ADDRESS_ADDRESS_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace redoubt::netstack {

enum class Family : uint8_t { kNone = 0, kIpv4 = 4, kIpv6 = 6 };

// How far an address reaches; the values are those of the multicast scope field (RFC 4291 section 2.7), which RFC 6724
// section 3.1 uses for unicast too.
enum class Scope : uint8_t { kInterfaceLocal = 1, kLinkLocal = 2, kSiteLocal = 5, kGlobal = 14 };

// An IPv4 or IPv6 address in network byte order, or none. A link-local address does not say on which link: that is the
// interface index beside it.
class Address final {
 public:
  static constexpr size_t kIpv4Size = 4;
  static constexpr size_t kIpv6Size = 16;

  constexpr Address() = default;
  static constexpr Address Ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    Address r;
    r.family_ = Family::kIpv4;
    r.bytes_[0] = a, r.bytes_[1] = b, r.bytes_[2] = c, r.bytes_[3] = d;
    return r;
  }
  // `host_order` is 0x7f000001 for 127.0.0.1.
  static constexpr Address Ipv4(uint32_t host_order) {
    return Ipv4(static_cast<uint8_t>(host_order >> 24), static_cast<uint8_t>(host_order >> 16),
                static_cast<uint8_t>(host_order >> 8), static_cast<uint8_t>(host_order));
  }
  static constexpr Address Ipv6(const std::array<uint8_t, kIpv6Size>& bytes) {
    Address r;
    r.family_ = Family::kIpv6;
    r.bytes_ = bytes;
    return r;
  }
  // From exactly 4 or 16 bytes of a packet; none for any other length.
  static Address FromBytes(std::span<const std::byte> bytes);
  // "192.0.2.1", "2001:db8::1" (RFC 4291 section 2.2); nullopt if it is neither.
  static std::optional<Address> Parse(std::string_view text);
  static constexpr Address Any(Family family) {
    Address r;
    r.family_ = family;
    return r;
  }
  static constexpr Address Loopback(Family family) {
    Address r = Any(family);
    if (family == Family::kIpv4) return Ipv4(127, 0, 0, 1);
    r.bytes_[15] = 1;
    return r;
  }

  constexpr Family family() const { return family_; }
  constexpr bool is_ipv4() const { return family_ == Family::kIpv4; }
  constexpr bool is_ipv6() const { return family_ == Family::kIpv6; }
  constexpr bool empty() const { return family_ == Family::kNone; }
  constexpr size_t size() const { return is_ipv4() ? kIpv4Size : is_ipv6() ? kIpv6Size : 0; }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_)).first(size()); }
  constexpr uint8_t operator[](size_t i) const { return bytes_[i]; }
  // The IPv4 address in host order; 0 for others.
  constexpr uint32_t ipv4_value() const {
    return is_ipv4() ? uint32_t{bytes_[0]} << 24 | uint32_t{bytes_[1]} << 16 | uint32_t{bytes_[2]} << 8 | bytes_[3] : 0;
  }

  constexpr bool IsUnspecified() const { return *this == Any(family_); }  // also true of none
  bool IsLoopback() const;                                                // 127.0.0.0/8, ::1
  bool IsMulticast() const;                                               // 224.0.0.0/4, ff00::/8
  constexpr bool IsLimitedBroadcast() const { return is_ipv4() && ipv4_value() == 0xffffffff; }
  bool IsLinkLocal() const;  // 169.254.0.0/16, fe80::/10 (unicast)
  bool IsV4Mapped() const;   // ::ffff:0:0/96
  // RFC 6724 section 3.1 and 3.2 (IPv4: loopback and 169.254/16 are link-local, all else global).
  Scope scope() const;

  // ::ffff:a.b.c.d of an IPv4 address and back; any other address unchanged.
  Address ToV4Mapped() const;
  Address FromV4Mapped() const;

  std::string ToString() const;
  size_t Hash() const;

  friend constexpr bool operator==(const Address&, const Address&) = default;
  friend constexpr auto operator<=>(const Address&, const Address&) = default;

 private:
  std::array<uint8_t, kIpv6Size> bytes_{};
  Family family_ = Family::kNone;
};

// An address and how many of its leading bits name the network.
struct Prefix {
  Address address;
  uint8_t length = 0;  // bits; at most 32 or 128

  bool Contains(const Address& a) const;  // false for the other family
  // The address with all host bits zero.
  Address Network() const;
  // The directed broadcast address; none for IPv6 and for IPv4 prefixes of 31 and 32 bits (RFC 3021).
  Address Broadcast() const;
  std::string ToString() const;
  friend constexpr bool operator==(const Prefix&, const Prefix&) = default;
};

// How many leading bits two addresses of one family share.
uint8_t CommonPrefixLength(const Address& a, const Address& b);

// Well-known groups.
inline constexpr Address kAllSystemsV4 = Address::Ipv4(224, 0, 0, 1);
inline constexpr Address kAllRoutersV4 = Address::Ipv4(224, 0, 0, 2);
inline constexpr Address kAllNodesV6 = Address::Ipv6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
inline constexpr Address kAllRoutersV6 = Address::Ipv6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2});
// RFC 4291 section 2.7.1.
Address SolicitedNodeAddress(const Address& unicast);

// An IEEE 802 MAC address.
struct LinkAddress {
  std::array<uint8_t, 6> bytes{};

  constexpr bool IsUnspecified() const { return *this == LinkAddress{}; }
  constexpr bool IsMulticast() const { return (bytes[0] & 1) != 0; }  // broadcast too
  constexpr bool IsBroadcast() const { return *this == LinkAddress{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}; }
  std::string ToString() const;
  friend constexpr bool operator==(const LinkAddress&, const LinkAddress&) = default;
};
inline constexpr LinkAddress kBroadcastLinkAddress{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
// RFC 1112 section 6.4, RFC 2464 section 7.
LinkAddress MulticastLinkAddress(const Address& group);

// fe80::/64 or another /64 with the modified EUI-64 identifier (RFC 4291 appendix A).
Address Eui64Address(const Address& prefix, const LinkAddress& mac);

struct AddressHash {
  size_t operator()(const Address& a) const { return a.Hash(); }
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_ADDRESS_ADDRESS_H_
