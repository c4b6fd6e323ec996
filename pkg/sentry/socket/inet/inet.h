// AF_INET and AF_INET6 sockets on the netstack: ip(7), ipv6(7), tcp(7), udp(7). Streams and datagrams.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_INET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_INET_H_

#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::inetsock {

// Registers both families with sockets of `network`, which must live for ever, and netdevice(7) for all families.
void RegisterFamilies(Network& network);

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_INET_H_
