// AF_INET and AF_INET6 sockets of the host's own stack, for --network=host: ip(7), ipv6(7), tcp(7), udp(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_HOSTINET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_HOSTINET_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/sentry/socket/inet/link_events.h"
#include "pkg/sentry/socket/inet/network.h"

namespace redoubt::hostinet {

// Registers both families. At most `most` of their sockets are open at a time, beyond which there is ENFILE: they are
// descriptors of this process. Once, by the composition root; in tests again and again.
void RegisterFamilies(int64_t most);

// From now on /proc/net and sock_diag(7) of `network`, which the guest sees, list them: the guest's own and no other of
// the host's.
void ListBy(inetsock::Network& network);

// Before any is made: `events` tells them what has happened, with the threads of the executor that it is of, which
// saves a switch to a thread that does nothing else. Errors of epoll_ctl(2).
Result<> TellBy(inetsock::LinkEvents& events);

}  // namespace redoubt::hostinet

#endif  // REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_HOSTINET_H_
