// What other parts of the kernel send to sockets of AF_NETLINK.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_RESERVATION_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_RESERVATION_H_

#include <cstddef>
#include <memory>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/socket/netlink/port.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::netlink {

// A place for one message in what a socket is to receive: taken ahead, so that the message is not lost, and given back
// by the end of a reservation that was not used. For mq_notify(2), SIGEV_THREAD. Outlives the socket where need be.
class Reservation final {
 public:
  // ENOTSOCK, EINVAL for one that is not of AF_NETLINK, ENOMEM if what is unread leaves no room.
  static Result<std::unique_ptr<Reservation>> Make(vfs::FileDescription& socket, size_t bytes);
  ~Reservation();
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  // Once, with as many bytes as were reserved.
  void Send(std::span<const std::byte> message);

 private:
  Reservation(RefPtr<Port> port, size_t bytes);

  const RefPtr<Port> port_;
  size_t bytes_;  // 0: used
};

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_RESERVATION_H_
