#include "pkg/netstack/header/ndp.h"

#include <algorithm>

namespace redoubt::netstack::header {

namespace {
constexpr uint8_t kSourceLink = 1;
constexpr uint8_t kTargetLink = 2;
constexpr uint8_t kPrefixInformation = 3;
constexpr uint8_t kMtu = 5;
constexpr uint8_t kNonce = 14;
constexpr uint8_t kSolicitation = 135;
constexpr uint8_t kAdvertisement = 136;
constexpr uint8_t kRouterAdvertisement = 134;
}  // namespace

std::optional<NdpOptions> NdpOptions::Parse(Bytes b) {
  NdpOptions r;
  while (!b.empty()) {
    if (b.size() < 2) return std::nullopt;
    size_t length = size_t{Load8(b, 1)} * 8;
    if (length == 0 || length > b.size()) return std::nullopt;
    switch (Load8(b, 0)) {
      case kSourceLink:
        if (length == 8) r.source_link = LoadLink(b, 2);
        break;
      case kTargetLink:
        if (length == 8) r.target_link = LoadLink(b, 2);
        break;
      case kMtu:
        if (length == 8) r.mtu = Load32(b, 4);
        break;
      case kNonce:
        if (length == 8) {
          r.has_nonce = true;
          for (size_t i = 0; i < r.nonce.size(); i++) r.nonce[i] = Load8(b, 2 + i);
        }
        break;
      case kPrefixInformation:
        if (length == 32 && Load8(b, 2) <= 128 && r.prefix_count < kMaxPrefixes) {
          r.prefixes[r.prefix_count++] = {.prefix = {LoadIpv6(b, 16), Load8(b, 2)},
                                          .on_link = (Load8(b, 3) & 0x80) != 0,
                                          .autonomous = (Load8(b, 3) & 0x40) != 0,
                                          .valid_lifetime = Load32(b, 4),
                                          .preferred_lifetime = Load32(b, 8)};
        }
        break;
      default:
        break;
    }
    b = b.subspan(length);
  }
  return r;
}

std::optional<NdpNeighbour> NdpNeighbour::Parse(Bytes b) {
  if (b.size() < kSize) return std::nullopt;
  uint8_t type = Load8(b, 0);
  // Section 7.1: code 0, target not multicast.
  if ((type != kSolicitation && type != kAdvertisement) || Load8(b, 1) != 0) return std::nullopt;
  NdpNeighbour r{.type = type, .target = LoadIpv6(b, 8)};
  if (r.target.IsMulticast()) return std::nullopt;
  if (type == kAdvertisement) {
    uint8_t flags = Load8(b, 4);
    r.router = (flags & 0x80) != 0;
    r.solicited = (flags & 0x40) != 0;
    r.override = (flags & 0x20) != 0;
  }
  std::optional<NdpOptions> options = NdpOptions::Parse(b.subspan(kSize));
  if (!options) return std::nullopt;
  r.options = *options;
  return r;
}

size_t NdpNeighbour::Write(MutableBytes out, const std::optional<LinkAddress>& link,
                           const std::optional<std::array<uint8_t, 6>>& nonce) const {
  Store8(out, 0, type);
  Store8(out, 1, 0);
  Store16(out, 2, 0);
  Store32(out, 4,
          type == kAdvertisement
              ? (router ? 0x80000000u : 0) | (solicited ? 0x40000000u : 0) | (override ? 0x20000000u : 0)
              : 0);
  StoreAddress(out, 8, target);
  size_t size = kSize;
  if (link) {
    Store8(out, size, type == kAdvertisement ? kTargetLink : kSourceLink);
    Store8(out, size + 1, 1);
    StoreLink(out, size + 2, *link);
    size += 8;
  }
  if (nonce) {
    Store8(out, size, kNonce);
    Store8(out, size + 1, 1);
    for (size_t i = 0; i < nonce->size(); i++) Store8(out, size + 2 + i, (*nonce)[i]);
    size += 8;
  }
  return size;
}

std::optional<NdpRouterAdvertisement> NdpRouterAdvertisement::Parse(Bytes b) {
  if (b.size() < kSize || Load8(b, 0) != kRouterAdvertisement || Load8(b, 1) != 0) return std::nullopt;
  NdpRouterAdvertisement r{.hop_limit = Load8(b, 4),
                           .managed = (Load8(b, 5) & 0x80) != 0,
                           .other = (Load8(b, 5) & 0x40) != 0,
                           .lifetime = Load16(b, 6),
                           .reachable_time = Load32(b, 8),
                           .retransmit_timer = Load32(b, 12)};
  std::optional<NdpOptions> options = NdpOptions::Parse(b.subspan(kSize));
  if (!options) return std::nullopt;
  r.options = *options;
  return r;
}

}  // namespace redoubt::netstack::header
