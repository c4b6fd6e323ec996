#include "pkg/sentry/socket/inet/inet.h"

#include <netinet/in.h>

#include <memory>
#include <utility>

#include "pkg/sentry/socket/inet/datagram_socket.h"
#include "pkg/sentry/socket/inet/interface_ioctl.h"
#include "pkg/sentry/socket/inet/stream_socket.h"

namespace redoubt::inetsock {

namespace {

class Inet final : public socket::Family {
 public:
  Inet(Network& network, int family) : network_(network), family_(family) {}

  // SOCK_RAW and ICMP datagrams are not there yet: EPROTONOSUPPORT.
  Result<RefPtr<socket::Socket>> Create(const socket::Caller& caller, int type, int protocol, int flags) override {
    if (protocol < 0 || protocol > 255) return Err(EINVAL);
    switch (type) {
      case SOCK_STREAM:
        if (protocol != 0 && protocol != IPPROTO_TCP) return Err(EPROTONOSUPPORT);
        return RefPtr<socket::Socket>(
            MakeRef<StreamSocket>(network_, socket::MakeSocketPath(caller.creds), family_, flags,
                                  netstack::tcp::Endpoint::Create(network_.tcp(), ToFamily(family_))));
      case SOCK_DGRAM:
        if (protocol != 0 && protocol != IPPROTO_UDP) return Err(EPROTONOSUPPORT);
        return RefPtr<socket::Socket>(
            MakeRef<DatagramSocket>(network_, socket::MakeSocketPath(caller.creds), family_, flags));
      case SOCK_RAW:
        return Err(EPROTONOSUPPORT);
      default:
        return Err(ESOCKTNOSUPPORT);
    }
  }

 private:
  Network& network_;
  const int family_;
};

struct Registration {
  explicit Registration(Network& network) : v4(network, AF_INET), v6(network, AF_INET6), devices(network.stack()) {}
  Inet v4, v6;
  InterfaceIoctls devices;
};

}  // namespace

void RegisterFamilies(Network& network) {
  // The sandbox has one network for ever; tests have one after another.
  static Registration* current = nullptr;
  auto next = std::make_unique<Registration>(network);
  socket::RegisterFamily(AF_INET, next->v4);
  socket::RegisterFamily(AF_INET6, next->v6);
  socket::RegisterDeviceIoctls(next->devices);
  delete std::exchange(current, next.release());
}

}  // namespace redoubt::inetsock
