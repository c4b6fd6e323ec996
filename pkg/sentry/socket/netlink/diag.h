// Private to netlink: NETLINK_SOCK_DIAG, sock_diag(7): what `ss` asks.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_DIAG_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_DIAG_H_

#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/netlink/protocol.h"

namespace redoubt::netlink {

// Dumps of TCP, UDP, AF_UNIX and AF_PACKET sockets. Other families, and dumps with a filter program, are refused, upon
// which `ss` reads /proc/net and filters by itself.
class DiagProtocol final : public Protocol {
 public:
  explicit DiagProtocol(inetsock::Network& network) : network_(network) {}
  Result<> Handle(Request& request) override;
  uint32_t groups() const override { return 0; }

 private:
  Result<> HandleInet(Request& request);
  // diag_local.cc
  Result<> HandleUnix(Request& request);
  Result<> HandlePacket(Request& request);

  inetsock::Network& network_;
};

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_DIAG_H_
