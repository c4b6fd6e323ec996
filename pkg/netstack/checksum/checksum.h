// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
#ifndef REDOUBT_PKG_NETSTACK_CHECKSUM_CHECKSUM_H_
#define REDOUBT_PKG_NETSTACK_CHECKSUM_CHECKSUM_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/netstack/buffer/buffer.h"

namespace redoubt::netstack {

// A "sum" is the ones' complement sum of 16-bit big-endian words, as a number in host order, not complemented; an odd
// last byte counts as the high half of a word. What goes into a header, in big-endian order, is ~sum. Sums of
// even-length pieces combine by CombineSums.

constexpr uint16_t FoldSum(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}
constexpr uint16_t CombineSums(uint16_t a, uint16_t b) { return FoldSum(uint64_t{a} + b); }

// The sum of `bytes`, any length and alignment, added to `initial`.
uint16_t Sum(std::span<const std::byte> bytes, uint16_t initial = 0);
// Of data[offset, end of data), whose views may begin at odd places.
uint16_t Sum(const Buffer& data, size_t offset, uint16_t initial = 0);

// Of the pseudo header of TCP and UDP: RFC 9293 section 3.1 for 4-byte addresses, RFC 8200 section 8.1 for 16-byte
// ones. `length` is that of the transport header and payload.
uint16_t PseudoHeaderSum(std::span<const std::byte> source, std::span<const std::byte> destination, uint8_t protocol,
                         uint32_t length);

// The checksum of a header in which the word `before` (at an even offset) has become `after`: RFC 1624 equation 3.
constexpr uint16_t UpdateChecksum(uint16_t checksum, uint16_t before, uint16_t after) {
  uint16_t not_checksum = static_cast<uint16_t>(~checksum);
  uint16_t not_before = static_cast<uint16_t>(~before);
  return static_cast<uint16_t>(~FoldSum(uint64_t{not_checksum} + not_before + after));
}

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_CHECKSUM_CHECKSUM_H_
