// AF_NETLINK: netlink(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_NETLINK_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_NETLINK_H_

#include "pkg/sentry/socket/inet/network.h"

namespace redoubt::netlink {

// Registers the family: NETLINK_ROUTE and NETLINK_SOCK_DIAG on `network`, which lives for ever (in tests until the next
// call), and NETLINK_KOBJECT_UEVENT, on which nothing is ever said, since no device comes or goes.
void RegisterFamily(inetsock::Network& network);

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_NETLINK_H_
