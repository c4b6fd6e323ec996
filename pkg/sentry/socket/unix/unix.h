// AF_UNIX sockets: unix(7). Stream, datagram and sequenced-packet; names in the file system and abstract ones;
// descriptors and credentials in messages.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_H_
#define REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/sentry/socket/socket.h"

namespace redoubt::unixsock {

// For socket::RegisterFamily(AF_UNIX, ...). Abstract names are one set per socket::Caller::network_space.
socket::Family& UnixFamily();

// Whom a message is from that comes by write(2), with which no Caller comes: who runs on the current fiber. By the
// composition root, before the first socket; without it, who has made the socket.
void SetCurrentIdentity(socket::Identity (*current)());

// For unix_diag (sock_diag(7)) and /proc/net/unix. Connections that nobody has accepted are in their listener's queue
// only.
struct SocketInfo {
  socket::SocketOwner owner;
  int type = 0;
  bool listening = false, connected = false;
  bool receive_shutdown = false, send_shutdown = false;
  std::string name;       // as sun_path has it; abstract: with its zero in front
  uint64_t peer_ino = 0;  // 0: none, or not accepted
  // Bytes unread here and at the peer; of a listener connections that wait, and how many may.
  uint32_t receive_queue = 0, send_queue = 0;
};
std::vector<SocketInfo> Sockets();
// The lines of /proc/net/unix after its heading.
std::string NetTable();

}  // namespace redoubt::unixsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_H_
