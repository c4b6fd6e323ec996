#include "pkg/netstack/address/address.h"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace redoubt::netstack {

Address Address::FromBytes(std::span<const std::byte> bytes) {
  Address r;
  if (bytes.size() == kIpv4Size) {
    r.family_ = Family::kIpv4;
  } else if (bytes.size() == kIpv6Size) {
    r.family_ = Family::kIpv6;
  } else {
    return r;
  }
  std::memcpy(r.bytes_.data(), bytes.data(), bytes.size());
  return r;
}

std::optional<Address> Address::Parse(std::string_view text) {
  std::string terminated(text);
  std::array<std::byte, kIpv6Size> bytes;
  if (inet_pton(AF_INET, terminated.c_str(), bytes.data()) == 1) return FromBytes(std::span(bytes).first(kIpv4Size));
  if (inet_pton(AF_INET6, terminated.c_str(), bytes.data()) == 1) return FromBytes(bytes);
  return std::nullopt;
}

bool Address::IsLoopback() const { return is_ipv4() ? bytes_[0] == 127 : *this == Loopback(Family::kIpv6); }

bool Address::IsMulticast() const { return is_ipv4() ? (bytes_[0] & 0xf0) == 0xe0 : is_ipv6() && bytes_[0] == 0xff; }

bool Address::IsLinkLocal() const {
  if (is_ipv4()) return bytes_[0] == 169 && bytes_[1] == 254;
  return is_ipv6() && bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
}

bool Address::IsV4Mapped() const {
  if (!is_ipv6()) return false;
  return std::all_of(bytes_.begin(), bytes_.begin() + 10, [](uint8_t b) { return b == 0; }) && bytes_[10] == 0xff &&
         bytes_[11] == 0xff;
}

Scope Address::scope() const {
  if (IsMulticast()) {
    if (is_ipv4()) {
      if (bytes_[1] == 0 && bytes_[2] == 0 && bytes_[0] == 224) return Scope::kLinkLocal;  // RFC 5771 section 4
      return Scope::kGlobal;
    }
    switch (bytes_[1] & 0xf) {
      case 1:
        return Scope::kInterfaceLocal;
      case 2:
        return Scope::kLinkLocal;
      case 3:
      case 4:
      case 5:
        return Scope::kSiteLocal;
      default:
        return Scope::kGlobal;
    }
  }
  if (IsLinkLocal() || IsLoopback()) return Scope::kLinkLocal;
  if (is_ipv6() && bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0xc0) return Scope::kSiteLocal;
  return Scope::kGlobal;
}

Address Address::ToV4Mapped() const {
  if (!is_ipv4()) return *this;
  Address r = Any(Family::kIpv6);
  r.bytes_[10] = r.bytes_[11] = 0xff;
  std::copy_n(bytes_.begin(), 4, r.bytes_.begin() + 12);
  return r;
}

Address Address::FromV4Mapped() const {
  return IsV4Mapped() ? Ipv4(bytes_[12], bytes_[13], bytes_[14], bytes_[15]) : *this;
}

std::string Address::ToString() const {
  if (empty()) return "none";
  char text[INET6_ADDRSTRLEN];
  inet_ntop(is_ipv4() ? AF_INET : AF_INET6, bytes_.data(), text, sizeof(text));
  return text;
}

size_t Address::Hash() const {
  uint64_t a;
  uint64_t b;
  std::memcpy(&a, bytes_.data(), 8);
  std::memcpy(&b, bytes_.data() + 8, 8);
  uint64_t h = (a ^ std::rotl(b, 32) ^ static_cast<uint64_t>(family_)) * 0x9e3779b97f4a7c15;
  return h ^ (h >> 32);
}

uint8_t CommonPrefixLength(const Address& a, const Address& b) {
  if (a.family() != b.family()) return 0;
  for (size_t i = 0; i < a.size(); i++) {
    if (uint8_t diff = a[i] ^ b[i]; diff != 0) return static_cast<uint8_t>(8 * i + std::countl_zero(diff));
  }
  return static_cast<uint8_t>(8 * a.size());
}

bool Prefix::Contains(const Address& a) const {
  return a.family() == address.family() && CommonPrefixLength(a, address) >= length;
}

Address Prefix::Network() const {
  std::array<std::byte, Address::kIpv6Size> bytes{};
  std::ranges::copy(address.bytes(), bytes.begin());
  for (size_t i = 0; i < address.size(); i++) {
    size_t bit = 8 * i;
    if (bit >= length) {
      bytes[i] = std::byte{0};
    } else if (bit + 8 > length) {
      bytes[i] &= static_cast<std::byte>(0xff << (8 - (length - bit)));
    }
  }
  return Address::FromBytes(std::span(bytes).first(address.size()));
}

Address Prefix::Broadcast() const {
  if (!address.is_ipv4() || length >= 31) return {};
  return Address::Ipv4(address.ipv4_value() | (0xffffffffu >> length));
}

std::string Prefix::ToString() const { return fmt::format("{}/{}", address.ToString(), length); }

Address SolicitedNodeAddress(const Address& unicast) {
  return Address::Ipv6({0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, unicast[13], unicast[14], unicast[15]});
}

std::string LinkAddress::ToString() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4],
                     bytes[5]);
}

LinkAddress MulticastLinkAddress(const Address& group) {
  if (group.is_ipv4()) {
    return {{0x01, 0x00, 0x5e, static_cast<uint8_t>(group[1] & 0x7f), group[2], group[3]}};
  }
  return {{0x33, 0x33, group[12], group[13], group[14], group[15]}};
}

Address Eui64Address(const Address& prefix, const LinkAddress& mac) {
  std::array<uint8_t, 16> b{};
  for (size_t i = 0; i < 8; i++) b[i] = prefix[i];
  b[8] = mac.bytes[0] ^ 2;
  b[9] = mac.bytes[1];
  b[10] = mac.bytes[2];
  b[11] = 0xff;
  b[12] = 0xfe;
  b[13] = mac.bytes[3];
  b[14] = mac.bytes[4];
  b[15] = mac.bytes[5];
  return Address::Ipv6(b);
}

}  // namespace redoubt::netstack
