#include "pkg/bpf/packet.h"

#include <linux/filter.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <bit>

namespace redoubt::bpf {

namespace {

constexpr uint16_t kIpv4 = 0x0800, kIpv6 = 0x86dd;  // ETH_P_IP, ETH_P_IPV6

template <typename T>
std::optional<T> Native(const Packet& packet, uint32_t offset) {
  std::array<std::byte, sizeof(T)> bytes{};
  if (!packet.Load(Packet::Base::kData, offset, bytes)) return std::nullopt;
  return std::bit_cast<T>(bytes);
}

std::optional<uint8_t> NetworkByte(const Packet& packet, uint32_t offset) {
  std::array<std::byte, 1> byte{};
  if (!packet.Load(Packet::Base::kNetwork, offset, byte)) return std::nullopt;
  return std::to_integer<uint8_t>(byte[0]);
}

// SKF_AD_NLATTR, SKF_AD_NLATTR_NEST: where the netlink attribute of type `x` is among those from `a` to `end`; 0:
// nowhere.
uint32_t FindAttribute(const Packet& packet, uint32_t a, uint32_t end, uint32_t x) {
  constexpr uint32_t kHeader = 4;
  while (end >= kHeader && a <= end - kHeader) {
    const uint16_t length = Native<uint16_t>(packet, a).value_or(0);
    const uint16_t type = Native<uint16_t>(packet, a + 2).value_or(0);
    if (length < kHeader || length > end - a) return 0;
    if ((type & 0x3fff) == x) return a;  // NLA_TYPE_MASK
    a += (uint32_t{length} + 3) & ~uint32_t{3};
  }
  return 0;
}

uint32_t FindNested(const Packet& packet, uint32_t a, uint32_t x) {
  constexpr uint32_t kHeader = 4;
  if (packet.size() < kHeader || a > packet.size() - kHeader) return 0;
  const uint16_t length = Native<uint16_t>(packet, a).value_or(0);
  if (length < kHeader || length > packet.size() - a) return 0;
  return FindAttribute(packet, a + kHeader, a + length, x);
}

// SKF_AD_PAY_OFFSET: where the payload of the transport begins, for programs that drop it. 0: unknown.
uint32_t PayloadOffset(const Packet& packet) {
  uint32_t transport;
  uint8_t protocol;
  bool fragment = false;
  if (packet.protocol() == kIpv4) {
    const std::optional<uint8_t> first = NetworkByte(packet, 0), number = NetworkByte(packet, 9);
    const uint8_t high = NetworkByte(packet, 6).value_or(0), low = NetworkByte(packet, 7).value_or(0);
    if (!first || !number || (*first & 15) < 5) return 0;
    transport = (*first & 15) * 4u;
    protocol = *number;
    fragment = (high & 0x3f) != 0 || low != 0;
  } else if (packet.protocol() == kIpv6) {
    const std::optional<uint8_t> next = NetworkByte(packet, 6);
    if (!next || !NetworkByte(packet, 39)) return 0;
    transport = 40;
    protocol = *next;
  } else {
    return 0;
  }
  const int64_t at = int64_t{packet.network_offset()} + transport;
  if (at < 0) return 0;
  uint32_t header = 0;
  if (!fragment) {
    switch (protocol) {
      case IPPROTO_TCP:
        header = std::max<uint32_t>(20, NetworkByte(packet, transport + 12).value_or(0) >> 4 << 2);
        break;
      case IPPROTO_UDP:
      case IPPROTO_ICMP:
      case IPPROTO_ICMPV6:
      case IPPROTO_IGMP:
        header = 8;
        break;
      default:
        break;
    }
  }
  return static_cast<uint32_t>(at) + header;
}

}  // namespace

bool LoadBytes(const Packet& packet, uint32_t offset, std::span<std::byte> out) {
  const auto at = static_cast<int32_t>(offset);
  if (at >= 0) return packet.Load(Packet::Base::kData, offset, out);
  if (at >= SKF_NET_OFF) return packet.Load(Packet::Base::kNetwork, static_cast<uint32_t>(at - SKF_NET_OFF), out);
  if (at >= SKF_LL_OFF) return packet.Load(Packet::Base::kLink, static_cast<uint32_t>(at - SKF_LL_OFF), out);
  return false;
}

bool LoadAncillary(const Packet& packet, uint32_t which, uint32_t x, uint32_t* a) {
  switch (which) {
    case SKF_AD_PROTOCOL:
      *a = packet.protocol();
      return true;
    case SKF_AD_PKTTYPE:
      *a = packet.type();
      return true;
    case SKF_AD_IFINDEX:
    case SKF_AD_HATYPE: {
      const std::optional<Packet::Interface> interface = packet.interface();
      if (!interface) return false;
      *a = which == SKF_AD_IFINDEX ? interface->index : interface->hardware_type;
      return true;
    }
    case SKF_AD_NLATTR:
      *a = packet.size() < 4 ? 0 : FindAttribute(packet, *a, packet.size(), x);
      return true;
    case SKF_AD_NLATTR_NEST:
      *a = FindNested(packet, *a, x);
      return true;
    case SKF_AD_ALU_XOR_X:
      *a ^= x;
      return true;
    case SKF_AD_PAY_OFFSET:
      *a = PayloadOffset(packet);
      return true;
    case SKF_AD_RANDOM:
      *a = packet.random();
      return true;
    default:
      *a = 0;
      return true;
  }
}

}  // namespace redoubt::bpf
