// AF_PACKET of the guest: packet(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::packetsock {

// By the composition root, before the first socket. Rings are made of `memory_file`. Both outlive all sockets.
void RegisterFamily(inetsock::Network& network, pgalloc::MemoryFile& memory_file);

// For /proc/net/packet and packet_diag.
struct SocketInfo {
  socket::SocketOwner owner;
  int type = 0;
  uint16_t ethertype = 0;        // host order
  uint32_t interface_index = 0;  // 0: all
  size_t queued = 0;             // bytes of the next frame
};
std::vector<SocketInfo> Sockets();
// The lines of /proc/net/packet after its heading.
std::string NetTable();

}  // namespace redoubt::packetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_H_
