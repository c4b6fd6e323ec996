// What sendmsg(2)'s ancillary data says of one datagram: ip(7), ipv6(7), RFC 3542 section 6.
#include <netinet/in.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cstring>

#include "pkg/sentry/socket/inet/datagram_socket.h"

namespace redoubt::inetsock {

using netstack::Address;
using netstack::SendOptions;
using socket::Control;

namespace {

template <typename T>
Result<T> Exactly(const Control& c) {
  T value;
  if (c.data.size() != sizeof(value)) return Err(EINVAL);
  std::memcpy(&value, c.data.data(), sizeof(value));
  return value;
}

// -1 in the options of IPv6 means the socket's own.
Result<> SetByte(const Control& c, int least, std::optional<uint8_t>& byte) {
  const int n = TRY(Exactly<int>(c));
  if (n < least || n > 255) return Err(EINVAL);
  byte.reset();
  if (n >= 0) byte = static_cast<uint8_t>(n);
  return {};
}

Result<> ParseIp(const Control& c, SendOptions& own) {
  switch (c.type) {
    case IP_PKTINFO: {
      const auto info = TRY(Exactly<in_pktinfo>(c));
      own.interface_index = static_cast<uint32_t>(std::max(info.ipi_ifindex, 0));
      const Address local = Address::Ipv4(ntohl(info.ipi_spec_dst.s_addr));
      own.local = local.IsUnspecified() ? Address() : local;
      return {};
    }
    case IP_TTL:
      return SetByte(c, 1, own.ttl);
    case IP_TOS:
      if (c.data.size() == 1) {
        own.traffic_class = std::to_integer<uint8_t>(c.data[0]);
      } else {
        TRY(SetByte(c, 0, own.traffic_class));
      }
      return {};
    default:
      return Err(EINVAL);
  }
}

Result<> ParseIpv6(const Control& c, bool to_ipv4, SendOptions& own) {
  if (c.type == IPV6_PKTINFO) {
    const auto info = TRY(Exactly<in6_pktinfo>(c));
    const Address local = Address::FromBytes(std::as_bytes(std::span(info.ipi6_addr.s6_addr)));
    own.interface_index = info.ipi6_ifindex;
    if (local.IsUnspecified()) return {};
    if (local.IsV4Mapped() != to_ipv4) return Err(EINVAL);
    own.local = to_ipv4 ? local.FromV4Mapped() : local;
    return {};
  }
  // The rest is about IPv6 packets.
  if (to_ipv4) return {};
  switch (c.type) {
    case IPV6_HOPLIMIT:
      return SetByte(c, -1, own.ttl);
    case IPV6_TCLASS:
      return SetByte(c, -1, own.traffic_class);
    default:
      return Err(EINVAL);
  }
}

}  // namespace

Result<SendOptions> DatagramSocket::ParseControl(std::span<const Control> control, bool to_ipv4) const {
  SendOptions own;
  for (const Control& c : control) {
    if (c.level == SOL_SOCKET) {
      own.stamps = TRY(Timestamping::ParseControl(c));
    } else if (c.level == IPPROTO_IP && to_ipv4) {
      TRY(ParseIp(c, own));
    } else if (c.level == IPPROTO_IPV6 && family() == AF_INET6) {
      TRY(ParseIpv6(c, to_ipv4, own));
    } else if (c.level == IPPROTO_UDP && is_udp()) {
      if (c.type != UDP_SEGMENT) return Err(EINVAL);
      own.segment_size = TRY(Exactly<uint16_t>(c));
    }
  }
  return own;
}

}  // namespace redoubt::inetsock
