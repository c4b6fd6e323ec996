#include "pkg/sentry/socket/hostinet/hostinet.h"

#include <netinet/in.h>

#include <memory>
#include <utility>

#include "pkg/sentry/fsimpl/host/poller.h"
#include "pkg/sentry/socket/hostinet/host_socket.h"

namespace redoubt::hostinet {

namespace {

class HostInet final : public socket::Family {
 public:
  explicit HostInet(int family) : family_(family) {}

  // ICMP datagrams ("ping" sockets) are as the host's net.ipv4.ping_group_range has it: EACCES. Raw ones would be to
  // the host's other connections what they are to its own root.
  Result<RefPtr<socket::Socket>> Create(const socket::Caller& caller, int type, int protocol, int flags) override {
    if (protocol < 0 || protocol > 255) return Err(EINVAL);
    const int icmp = family_ == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
    switch (type) {
      case SOCK_STREAM:
        if (protocol != 0 && protocol != IPPROTO_TCP) return Err(EPROTONOSUPPORT);
        protocol = IPPROTO_TCP;
        break;
      case SOCK_DGRAM:
        if (protocol != 0 && protocol != IPPROTO_UDP && protocol != icmp) return Err(EPROTONOSUPPORT);
        if (protocol == 0) protocol = IPPROTO_UDP;
        break;
      case SOCK_RAW:
        return Err(protocol == 0 ? EPROTONOSUPPORT : EPERM);
      default:
        return Err(ESOCKTNOSUPPORT);
    }
    Descriptor descriptor = TRY(Descriptor::Open(family_, type, protocol));
    return RefPtr<socket::Socket>(TRY(HostSocket::Make(caller, std::move(descriptor), family_, type, protocol, flags)));
  }

 private:
  const int family_;
};

class PollerReceiver final : public inetsock::LinkEvents::Receiver {
 public:
  Taken Receive(size_t most) override {
    const size_t told = host::Poller::Get().Look(most);
    return {.any = told > 0, .more = told >= most};
  }
};

}  // namespace

Result<> TellBy(inetsock::LinkEvents& events) {
  host::Poller& poller = host::Poller::Get();
  poller.LeaveToCaller();
  return events.Add(poller.epoll_fd(), std::make_unique<PollerReceiver>());
}

void RegisterFamilies(int64_t most) {
  static HostInet* const v4 = new HostInet(AF_INET);
  static HostInet* const v6 = new HostInet(AF_INET6);
  Descriptor::SetMost(most);
  socket::RegisterFamily(AF_INET, *v4);
  socket::RegisterFamily(AF_INET6, *v6);
}

}  // namespace redoubt::hostinet
