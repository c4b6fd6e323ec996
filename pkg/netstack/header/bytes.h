// Big-endian fields in packets. Offsets are the caller's to check; std::span asserts nothing, so every parser compares
// sizes first, once, and its fuzz test runs under the address sanitizer.
#ifndef REDOUBT_PKG_NETSTACK_HEADER_BYTES_H_
#define REDOUBT_PKG_NETSTACK_HEADER_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "pkg/netstack/address/address.h"

namespace redoubt::netstack::header {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline uint8_t Load8(Bytes b, size_t at) { return static_cast<uint8_t>(b[at]); }
inline uint16_t Load16(Bytes b, size_t at) { return static_cast<uint16_t>(Load8(b, at) << 8 | Load8(b, at + 1)); }
inline uint32_t Load32(Bytes b, size_t at) { return uint32_t{Load16(b, at)} << 16 | Load16(b, at + 2); }
inline void Store8(MutableBytes b, size_t at, uint8_t v) { b[at] = std::byte{v}; }
inline void Store16(MutableBytes b, size_t at, uint16_t v) {
  Store8(b, at, static_cast<uint8_t>(v >> 8));
  Store8(b, at + 1, static_cast<uint8_t>(v));
}
inline void Store32(MutableBytes b, size_t at, uint32_t v) {
  Store16(b, at, static_cast<uint16_t>(v >> 16));
  Store16(b, at + 2, static_cast<uint16_t>(v));
}
inline Address LoadIpv4(Bytes b, size_t at) { return Address::FromBytes(b.subspan(at, 4)); }
inline Address LoadIpv6(Bytes b, size_t at) { return Address::FromBytes(b.subspan(at, 16)); }
inline void StoreAddress(MutableBytes b, size_t at, const Address& a) {
  std::memcpy(b.data() + at, a.bytes().data(), a.size());
}
inline LinkAddress LoadLink(Bytes b, size_t at) {
  LinkAddress a;
  std::memcpy(a.bytes.data(), b.data() + at, a.bytes.size());
  return a;
}
inline void StoreLink(MutableBytes b, size_t at, const LinkAddress& a) {
  std::memcpy(b.data() + at, a.bytes.data(), a.bytes.size());
}

}  // namespace redoubt::netstack::header

#endif  // REDOUBT_PKG_NETSTACK_HEADER_BYTES_H_
