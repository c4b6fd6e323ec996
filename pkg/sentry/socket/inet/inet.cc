#include "pkg/sentry/socket/inet/inet.h"

#include <linux/capability.h>
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

  // ICMP datagrams ("ping" sockets) are everybody's, as with a net.ipv4.ping_group_range of all groups.
  Result<RefPtr<socket::Socket>> Create(const socket::Caller& caller, int type, int protocol, int flags) override {
    if (protocol < 0 || protocol > 255) return Err(EINVAL);
    switch (type) {
      case SOCK_STREAM:
        if (protocol != 0 && protocol != IPPROTO_TCP) return Err(EPROTONOSUPPORT);
        return RefPtr<socket::Socket>(
            MakeRef<StreamSocket>(network_, socket::MakeSocketPath(caller.creds), family_, flags,
                                  netstack::tcp::Endpoint::Create(network_.tcp(), ToFamily(family_))));
      case SOCK_DGRAM:
        if (protocol == (family_ == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6})) {
          return Datagrams(caller, type, protocol, flags, MakePing(network_, ToFamily(family_)));
        }
        if (protocol != 0 && protocol != IPPROTO_UDP) return Err(EPROTONOSUPPORT);
        return Datagrams(caller, type, IPPROTO_UDP, flags, MakeUdp(network_, ToFamily(family_)));
      case SOCK_RAW:
        if (protocol == 0) return Err(EPROTONOSUPPORT);
        if (!caller.creds.HasCapability(CAP_NET_RAW)) return Err(EPERM);
        return Datagrams(caller, type, protocol, flags,
                         MakeRaw(network_, ToFamily(family_), static_cast<uint8_t>(protocol)));
      default:
        return Err(ESOCKTNOSUPPORT);
    }
  }

 private:
  Result<RefPtr<socket::Socket>> Datagrams(const socket::Caller& caller, int type, int protocol, int flags,
                                           std::unique_ptr<DatagramTransport> transport) {
    return RefPtr<socket::Socket>(MakeRef<DatagramSocket>(network_, socket::MakeSocketPath(caller.creds), family_, type,
                                                          protocol, flags, std::move(transport)));
  }

  Network& network_;
  const int family_;
};

struct Registration {
  explicit Registration(Network& network) : v4(network, AF_INET), v6(network, AF_INET6), devices(network) {}
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
