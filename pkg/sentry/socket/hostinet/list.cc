// This sandbox's sockets of the host, as /proc/net and sock_diag(7) show them: no other of the host's.
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "pkg/sentry/socket/hostinet/host_socket.h"
#include "pkg/sentry/socket/hostinet/hostinet.h"

namespace redoubt::hostinet {

namespace {

constexpr uint8_t kEstablished = 1, kClosed = 7;

// None: no port, and so nothing to be listed by.
std::optional<netstack::SocketAddress> Parse(const Result<socket::AddressBytes>& bytes) {
  if (!bytes) return std::nullopt;
  sockaddr_in v4;
  sockaddr_in6 v6;
  sa_family_t family = AF_UNSPEC;
  if (bytes->size() < sizeof(family)) return std::nullopt;
  std::memcpy(&family, bytes->data(), sizeof(family));
  if (family == AF_INET && bytes->size() >= sizeof(v4)) {
    std::memcpy(&v4, bytes->data(), sizeof(v4));
    return netstack::SocketAddress{netstack::Address::Ipv4(ntohl(v4.sin_addr.s_addr)), ntohs(v4.sin_port)};
  }
  if (family == AF_INET6 && bytes->size() >= sizeof(v6)) {
    std::memcpy(&v6, bytes->data(), sizeof(v6));
    return netstack::SocketAddress{netstack::Address::FromBytes(std::as_bytes(std::span(v6.sin6_addr.s6_addr))),
                                   ntohs(v6.sin6_port)};
  }
  return std::nullopt;
}

class Lister final : public inetsock::SocketLister {
 public:
  std::vector<inetsock::ListedSocket> List(netstack::Family family, int protocol) override {
    std::vector<inetsock::ListedSocket> all;
    for (const RefPtr<socket::Socket>& s : socket::SocketsOf(family == netstack::Family::kIpv4 ? AF_INET : AF_INET6)) {
      if (s->protocol() != protocol) continue;
      // Whoever lists has registered these families: there are no other sockets of them.
      if (auto listed = static_cast<HostSocket&>(*s).Listed()) all.push_back(*listed);
    }
    return all;
  }
};

}  // namespace

std::optional<inetsock::ListedSocket> HostSocket::Listed() {
  const std::optional<netstack::SocketAddress> local = Parse(descriptor_.LocalName());
  if (!local || local->port == 0) return std::nullopt;
  const std::optional<netstack::SocketAddress> peer = Parse(descriptor_.PeerName());
  const socket::SocketOwner owner = socket::OwnerOf(*this);
  inetsock::ListedSocket listed{.local = *local,
                                .peer = peer.value_or(netstack::SocketAddress{}),
                                .state = peer ? kEstablished : kClosed,
                                .ino = owner.ino,
                                .uid = owner.uid};
  if (is_stream()) {
    // Its first byte is the state.
    std::array<std::byte, sizeof(tcp_info)> info{};
    Result<size_t> n = descriptor_.GetOption(IPPROTO_TCP, TCP_INFO, info);
    if (n && *n > 0) listed.state = std::to_integer<uint8_t>(info[0]);
  }
  constexpr uint8_t kListen = 10;
  if (listed.state != kListen) {
    listed.receive_queue = static_cast<uint32_t>(std::max(descriptor_.IntIoctl(FIONREAD).value_or(0), 0)) +
                           static_cast<uint32_t>(unread_size_.load(std::memory_order_acquire));
    listed.send_queue = static_cast<uint32_t>(std::max(descriptor_.IntIoctl(SIOCOUTQ).value_or(0), 0));
  }
  return listed;
}

void ListBy(inetsock::Network& network) {
  static Lister* const lister = new Lister();
  network.SetLister(*lister);
}

}  // namespace redoubt::hostinet
