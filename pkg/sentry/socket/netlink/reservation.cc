#include "pkg/sentry/socket/netlink/reservation.h"

#include <utility>

#include "pkg/log/log.h"
#include "pkg/sentry/socket/netlink/netlink_socket.h"

namespace redoubt::netlink {

Reservation::Reservation(RefPtr<Port> port, size_t bytes) : port_(std::move(port)), bytes_(bytes) {}

Reservation::~Reservation() {
  if (bytes_ > 0) port_->Unreserve(bytes_);
}

Result<std::unique_ptr<Reservation>> Reservation::Make(vfs::FileDescription& socket, size_t bytes) {
  if (dynamic_cast<socket::Socket*>(&socket) == nullptr) return Err(ENOTSOCK);
  auto* netlink = dynamic_cast<NetlinkSocket*>(&socket);
  if (netlink == nullptr) return Err(EINVAL);
  TRY(netlink->port()->Reserve(bytes));
  return std::unique_ptr<Reservation>(new Reservation(netlink->port(), bytes));
}

void Reservation::Send(std::span<const std::byte> message) {
  CHECK(message.size() == bytes_, "what was reserved is what is sent");
  port_->DeliverReserved({message.begin(), message.end()});
  bytes_ = 0;
}

}  // namespace redoubt::netlink
