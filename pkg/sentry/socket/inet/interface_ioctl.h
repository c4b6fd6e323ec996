// Private to inet: the requests of netdevice(7) that read. Those that change an interface are not there: ENOTTY.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_INTERFACE_IOCTL_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_INTERFACE_IOCTL_H_

#include "pkg/netstack/stack/stack.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::inetsock {

// SIOCGIFCONF, SIOCGIFNAME, SIOCGIFINDEX, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFNETMASK, SIOCGIFBRDADDR, SIOCGIFMTU,
// SIOCGIFHWADDR, SIOCGIFTXQLEN. ENODEV, EADDRNOTAVAIL, EFAULT, EINVAL.
class InterfaceIoctls final : public socket::DeviceIoctls {
 public:
  explicit InterfaceIoctls(Network& network) : network_(network), stack_(network.stack()) {}
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;

 private:
  Network& network_;
  netstack::Stack& stack_;
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_INTERFACE_IOCTL_H_
