#include "pkg/sentry/socket/netlink/netlink.h"

#include <linux/netlink.h>

#include <memory>
#include <utility>

#include "pkg/sentry/socket/netlink/diag.h"
#include "pkg/sentry/socket/netlink/netlink_socket.h"
#include "pkg/sentry/socket/netlink/route.h"

namespace redoubt::netlink {
namespace {

class Silent final : public Protocol {
 public:
  Result<> Handle(Request&) override { return Err(EOPNOTSUPP); }
  uint32_t groups() const override { return 32; }
};

class Netlink final : public socket::Family {
 public:
  explicit Netlink(inetsock::Network& network) : route_(network), diag_(network) {}

  Result<RefPtr<socket::Socket>> Create(const socket::Caller& caller, int type, int protocol, int flags) override {
    if (type != SOCK_RAW && type != SOCK_DGRAM) return Err(ESOCKTNOSUPPORT);
    Protocol* p = Find(protocol);
    if (p == nullptr) return Err(EPROTONOSUPPORT);
    return RefPtr<socket::Socket>(MakeRef<NetlinkSocket>(*p, protocol, type, caller, flags));
  }

 private:
  Protocol* Find(int protocol) {
    switch (protocol) {
      case NETLINK_ROUTE:
        return &route_;
      case NETLINK_SOCK_DIAG:
        return &diag_;
      case NETLINK_KOBJECT_UEVENT:
        return &uevent_;
      default:
        return nullptr;
    }
  }

  RouteProtocol route_;
  DiagProtocol diag_;
  Silent uevent_;
};

}  // namespace

void RegisterFamily(inetsock::Network& network) {
  static Netlink* current = nullptr;
  auto next = std::make_unique<Netlink>(network);
  socket::RegisterFamily(AF_NETLINK, *next);
  delete std::exchange(current, next.release());
}

}  // namespace redoubt::netlink
