// Private to inet: the options of ip(7) and ipv6(7) that streams and datagrams share, and those of socket(7) that the
// netstack gives a meaning.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_IP_OPTIONS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_IP_OPTIONS_H_

#include <linux/capability.h>
#include <netinet/in.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::inetsock {

// ip(7)'s numbers may come as an int or as one byte, ipv6(7)'s may not. EINVAL.
inline Result<int> IpOptionValue(int level, std::span<const std::byte> value) {
  if (value.size() >= sizeof(int) || level == IPPROTO_IPV6) return socket::IntOption(value);
  if (value.empty()) return Err(EINVAL);
  return std::to_integer<int>(value[0]);
}

// `Options`: tcp::EndpointOptions or DatagramOptions. -1 in a TTL or hop limit means the default. ENOPROTOOPT, EINVAL,
// EPERM.
template <typename Options>
Result<> SetIpOption(const socket::Caller& caller, Options& options, int level, int name,
                     std::span<const std::byte> value) {
  constexpr bool kDatagram = requires { options.multicast_ttl; };
  const int n = TRY(IpOptionValue(level, value));
  const bool v6 = level == IPPROTO_IPV6;
  auto hops = [&](uint8_t& to, uint8_t none) -> Result<> {
    if (n < -1 || n > 255) return Err(EINVAL);
    to = n == -1 ? none : static_cast<uint8_t>(n);
    return {};
  };
  if (name == (v6 ? IPV6_UNICAST_HOPS : IP_TTL)) {
    if (!v6 && n == 0) return Err(EINVAL);
    return hops(options.ttl, 0);
  }
  if (name == (v6 ? IPV6_TCLASS : IP_TOS)) {
    if (v6 && (n < -1 || n > 255)) return Err(EINVAL);
    // A stream's two ECN bits are TCP's.
    options.traffic_class = static_cast<uint8_t>(n == -1 && v6 ? 0 : n & (kDatagram ? 0xff : 0xfc));
    return {};
  }
  if (name == (v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER)) {
    if (n < IP_PMTUDISC_DONT || n > IP_PMTUDISC_OMIT) return Err(EINVAL);
    options.mtu_discover = static_cast<uint8_t>(n);
    const bool never_cut = n == IP_PMTUDISC_DO || n == IP_PMTUDISC_PROBE;
    options.dont_fragment = never_cut || (!kDatagram && n == IP_PMTUDISC_WANT);
    return {};
  }
  // One switch each, by whichever of the two names.
  if (name == (v6 ? IPV6_FREEBIND : IP_FREEBIND)) {
    options.foreign.freebind = n != 0;
    return {};
  }
  if (name == (v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT)) {
    if (n != 0 && !caller.creds.HasCapability(CAP_NET_ADMIN) && !caller.creds.HasCapability(CAP_NET_RAW)) {
      return Err(EPERM);
    }
    options.foreign.transparent = n != 0;
    return {};
  }
  if constexpr (kDatagram) {
    if (name == (v6 ? IPV6_RECVERR : IP_RECVERR)) {
      options.receive_errors = n != 0;
      return {};
    }
    if (name == (v6 ? IPV6_MULTICAST_HOPS : IP_MULTICAST_TTL)) return hops(options.multicast_ttl, 1);
    if (name == (v6 ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP)) {
      options.multicast_loop = n != 0;
      return {};
    }
    if (name == (v6 ? IPV6_MULTICAST_ALL : IP_MULTICAST_ALL)) {
      if (n != 0 && n != 1) return Err(EINVAL);
      options.multicast_all = n != 0;
      return {};
    }
  }
  return Err(ENOPROTOOPT);
}

// ENOPROTOOPT.
template <typename Options>
Result<int> GetIpOption(const Options& options, int level, int name, uint8_t default_ttl) {
  constexpr bool kDatagram = requires { options.multicast_ttl; };
  const bool v6 = level == IPPROTO_IPV6;
  if (name == (v6 ? IPV6_UNICAST_HOPS : IP_TTL)) return options.ttl != 0 ? options.ttl : default_ttl;
  if (name == (v6 ? IPV6_TCLASS : IP_TOS)) return options.traffic_class;
  if (name == (v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER)) {
    return options.mtu_discover;
  }
  if (name == (v6 ? IPV6_FREEBIND : IP_FREEBIND)) return options.foreign.freebind ? 1 : 0;
  if (name == (v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT)) return options.foreign.transparent ? 1 : 0;
  if (v6 && name == IPV6_V6ONLY) return options.v6_only ? 1 : 0;
  if constexpr (kDatagram) {
    if (name == (v6 ? IPV6_RECVERR : IP_RECVERR)) return options.receive_errors ? 1 : 0;
    if (name == (v6 ? IPV6_MULTICAST_HOPS : IP_MULTICAST_TTL)) return options.multicast_ttl;
    if (name == (v6 ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP)) return options.multicast_loop ? 1 : 0;
    if (name == (v6 ? IPV6_MULTICAST_ALL : IP_MULTICAST_ALL)) return options.multicast_all ? 1 : 0;
  }
  return Err(ENOPROTOOPT);
}

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_IP_OPTIONS_H_
