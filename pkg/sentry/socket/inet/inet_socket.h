// Private to inet: what stream and datagram sockets have in common.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_INET_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_INET_SOCKET_H_

#include <utility>

#include "pkg/sentry/socket/inet/address.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/inet/timestamping.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/zerocopy.h"

namespace redoubt::inetsock {

class InetSocket : public socket::Socket {
 public:
  // FIONREAD and SIOCOUTQ by Readable and Unsent; the base's otherwise.
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;

 protected:
  InetSocket(Network& network, vfs::Path path, int family, int type, int protocol, int flags)
      : Socket(std::move(path), family, type, protocol, flags), network_(network) {}

  virtual Result<size_t> Readable() = 0;  // FIONREAD, bytes
  virtual Result<size_t> Unsent() = 0;    // SIOCOUTQ, bytes

  // ip(7): a port below 1024 needs CAP_NET_BIND_SERVICE. EACCES.
  static Result<> CheckPort(const socket::Caller& caller, uint16_t port);
  // SO_BINDTODEVICE (socket(7)): the index of the interface of that name, 0 for none. ENODEV, EINVAL.
  Result<uint32_t> InterfaceOption(std::span<const std::byte> value) const;
  // SO_BINDTOIFINDEX, which does not ask whether there is such an interface. EINVAL.
  static Result<uint32_t> IndexOption(std::span<const std::byte> value);
  std::string InterfaceName(uint32_t index) const;

  // Of a send that took so many bytes; true: waiter::kErr is to be told.
  bool CompletesZerocopy(size_t bytes, int flags) {
    if (bytes == 0 || (flags & MSG_ZEROCOPY) == 0 || !option_on(SO_ZEROCOPY)) return false;
    zerocopy_.Count();
    return true;
  }
  waiter::EventMask ZerocopyReadiness() const { return zerocopy_.pending() ? waiter::kErr : waiter::EventMask{0}; }

  Network& network_;
  socket::ZerocopyCompletions zerocopy_;
  Timestamping timestamping_;
};

using socket::Wait;

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_INET_SOCKET_H_
