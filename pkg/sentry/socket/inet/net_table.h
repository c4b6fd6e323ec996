// /proc/net of a Network: proc(5), "/proc/pid/net".
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_NET_TABLE_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_NET_TABLE_H_

#include <string>
#include <string_view>

#include "pkg/sentry/socket/inet/network.h"

namespace redoubt::inetsock {

// The lines after the heading of /proc/net/NAME: dev, if_inet6, route, tcp, tcp6, udp, udp6; none for any other name.
// Owner and inode are those of the socket, as stat(2) and /proc/PID/fd show them; 0 where there is none (any more).
std::string NetTable(Network& network, std::string_view name);

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_NET_TABLE_H_
