// sockaddr_in and sockaddr_in6 (ip(7), ipv6(7)) as the guest gives and gets them.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_ADDRESS_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_ADDRESS_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/netstack/transport/datagram_endpoint.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::inetsock {

constexpr netstack::Family ToFamily(int family) {
  return family == AF_INET ? netstack::Family::kIpv4 : netstack::Family::kIpv6;
}

// The address's family, which need not be the socket's. EINVAL if there are not even those bytes.
Result<int> FamilyOf(socket::Address bytes);

// Whether an IPv6 socket takes a sockaddr_in as well: datagram ones do, as a mapped address.
enum class AcceptsIpv4 : bool { kNo, kYes };
// For a socket of `family`, AF_INET or AF_INET6. EINVAL (too short), EAFNOSUPPORT.
Result<netstack::SocketAddress> ParseAddress(int family, socket::Address bytes, AcceptsIpv4 ipv4 = AcceptsIpv4::kNo);

// For a socket of `family`; an IPv4 address is mapped for AF_INET6.
socket::AddressBytes FormatAddress(int family, const netstack::Address& address, uint16_t port,
                                   uint32_t interface_index = 0);

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_ADDRESS_H_
