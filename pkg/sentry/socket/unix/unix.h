// AF_UNIX sockets: unix(7). Stream, datagram and sequenced-packet; names in the file system and abstract ones;
// descriptors and credentials in messages.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_H_
#define REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_H_

#include "pkg/sentry/socket/socket.h"

namespace redoubt::unixsock {

// For socket::RegisterFamily(AF_UNIX, ...). Abstract names are one set per socket::Caller::network_space.
socket::Family& UnixFamily();

// Whom a message is from that comes by write(2), with which no Caller comes: who runs on the current fiber. By the
// composition root, before the first socket; without it, who has made the socket.
void SetCurrentIdentity(socket::Identity (*current)());

}  // namespace redoubt::unixsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_H_
