// Where something goes or comes from: sockaddr_in, sockaddr_in6 (man 7 ip, ipv6).
#ifndef REDOUBT_PKG_NETSTACK_ADDRESS_SOCKET_ADDRESS_H_
#define REDOUBT_PKG_NETSTACK_ADDRESS_SOCKET_ADDRESS_H_

#include <cstdint>

#include "pkg/netstack/address/address.h"

namespace redoubt::netstack {

struct SocketAddress {
  Address address;
  uint16_t port = 0;             // in the host's byte order
  uint32_t interface_index = 0;  // sin6_scope_id
  friend bool operator==(const SocketAddress&, const SocketAddress&) = default;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_ADDRESS_SOCKET_ADDRESS_H_
