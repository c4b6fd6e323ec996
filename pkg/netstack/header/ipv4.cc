#include "pkg/netstack/header/ipv4.h"

#include <algorithm>

namespace redoubt::netstack::header {

namespace {
constexpr uint8_t kOptionEnd = 0;
constexpr uint8_t kOptionNop = 1;
constexpr uint8_t kOptionRecordRoute = 7;
constexpr uint8_t kOptionTimestamp = 68;
constexpr uint8_t kOptionLooseRoute = 131;
constexpr uint8_t kOptionStrictRoute = 137;
constexpr uint8_t kOptionRouterAlert = 148;
constexpr uint8_t kOptionCopied = 0x80;
}  // namespace

std::optional<Ipv4> Ipv4::Parse(Bytes b, size_t packet_size) {
  if (b.size() < kMinSize || packet_size < kMinSize) return std::nullopt;
  if (Load8(b, 0) >> 4 != 4) return std::nullopt;
  uint16_t fragment = Load16(b, 6);
  Ipv4 h{.header_length = static_cast<uint8_t>((Load8(b, 0) & 0xf) * 4),
         .traffic_class = Load8(b, 1),
         .total_length = Load16(b, 2),
         .id = Load16(b, 4),
         .dont_fragment = (fragment & 0x4000) != 0,
         .more_fragments = (fragment & 0x2000) != 0,
         .fragment_offset = static_cast<uint16_t>((fragment & 0x1fff) * 8),
         .ttl = Load8(b, 8),
         .protocol = Load8(b, 9),
         .checksum = Load16(b, 10),
         .source = LoadIpv4(b, 12),
         .destination = LoadIpv4(b, 16)};
  if (h.header_length < kMinSize || h.header_length > b.size() || h.total_length < h.header_length ||
      h.total_length > packet_size) {
    return std::nullopt;
  }
  return h;
}

void Ipv4::Write(MutableBytes out) const {
  Store8(out, 0, static_cast<uint8_t>(0x40 | header_length / 4));
  Store8(out, 1, traffic_class);
  Store16(out, 2, total_length);
  Store16(out, 4, id);
  Store16(out, 6,
          static_cast<uint16_t>((dont_fragment ? 0x4000 : 0) | (more_fragments ? 0x2000 : 0) | fragment_offset / 8));
  Store8(out, 8, ttl);
  Store8(out, 9, protocol);
  Store16(out, 10, checksum);
  StoreAddress(out, 12, source);
  StoreAddress(out, 16, destination);
}

std::optional<Ipv4Options> Ipv4Options::Parse(Bytes options, size_t& error_at) {
  Ipv4Options r;
  for (size_t i = 0; i < options.size();) {
    uint8_t kind = Load8(options, i);
    if (kind == kOptionEnd) break;
    if (kind == kOptionNop) {
      i++;
      continue;
    }
    error_at = i + 1;
    if (i + 1 >= options.size()) return std::nullopt;
    uint8_t length = Load8(options, i + 1);
    if (length < 2 || length > options.size() - i) return std::nullopt;
    switch (kind) {
      case kOptionRouterAlert:
        if (length != 4) return std::nullopt;
        r.router_alert = true;
        break;
      case kOptionLooseRoute:
      case kOptionStrictRoute:
        r.source_route = true;
        break;
      case kOptionRecordRoute:
        // Once a packet; the pointer is 1-based and at least 4.
        if (r.record_route_at >= 0 || length < 3) return std::nullopt;
        error_at = i + 2;
        if (Load8(options, i + 2) < 4) return std::nullopt;
        r.record_route_at = static_cast<int>(i);
        break;
      case kOptionTimestamp:
        if (r.timestamp_at >= 0 || length < 4) return std::nullopt;
        error_at = i + 2;
        if (Load8(options, i + 2) < 5) return std::nullopt;
        r.timestamp_at = static_cast<int>(i);
        break;
      default:
        break;
    }
    i += length;
  }
  return r;
}

size_t CopiedOptions(Bytes options, MutableBytes out) {
  size_t used = 0;
  for (size_t i = 0; i < options.size();) {
    uint8_t kind = Load8(options, i);
    if (kind == kOptionEnd) break;
    size_t length = kind == kOptionNop ? 1 : i + 1 < options.size() ? Load8(options, i + 1) : 0;
    if (length == 0 || length > options.size() - i) break;
    if ((kind & kOptionCopied) != 0 && used + length <= out.size()) {
      std::ranges::copy(options.subspan(i, length), out.begin() + used);
      used += length;
    }
    i += length;
  }
  while (used % 4 != 0) out[used++] = std::byte{0};
  return used;
}

}  // namespace redoubt::netstack::header
