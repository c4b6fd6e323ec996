#include "pkg/sentry/socket/hostinet/options.h"

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace redoubt::hostinet {

namespace {

constexpr uint8_t kInt = sizeof(int);
constexpr uint8_t kName = 16;  // IFNAMSIZ, TCP_CA_NAME_MAX
constexpr uint16_t kTcpInfo = 512;

constexpr Option Int(int level, int name) { return {level, name, kInt, kInt, kInt}; }
// ip(7)'s numbers may come as one byte, too.
constexpr Option IpInt(int name) { return {IPPROTO_IP, name, 1, kInt, kInt}; }
constexpr Option GetInt(int level, int name) { return {level, name, 0, 0, kInt}; }

constexpr Option kOptions[] = {
    // socket(7). Timeouts, what the socket is, and how close(2) lingers are the Sentry's own; of SO_LINGER the host is
    // only told whether to reset.
    Int(SOL_SOCKET, SO_REUSEADDR),
    Int(SOL_SOCKET, SO_REUSEPORT),
    Int(SOL_SOCKET, SO_KEEPALIVE),
    Int(SOL_SOCKET, SO_BROADCAST),
    Int(SOL_SOCKET, SO_OOBINLINE),
    Int(SOL_SOCKET, SO_DONTROUTE),
    Int(SOL_SOCKET, SO_SNDBUF),
    Int(SOL_SOCKET, SO_RCVBUF),
    Int(SOL_SOCKET, SO_RCVLOWAT),
    Int(SOL_SOCKET, SO_PRIORITY),
    Int(SOL_SOCKET, SO_NO_CHECK),
    Int(SOL_SOCKET, SO_RXQ_OVFL),
    Int(SOL_SOCKET, SO_TIMESTAMP),
    Int(SOL_SOCKET, SO_TIMESTAMPNS),
    Int(SOL_SOCKET, SO_BINDTOIFINDEX),
    {SOL_SOCKET, SO_BINDTODEVICE, 0, kName, kName},
    {SOL_SOCKET, SO_LINGER, sizeof(linger), sizeof(linger), 0},
    GetInt(SOL_SOCKET, SO_ERROR),
    GetInt(SOL_SOCKET, SO_ACCEPTCONN),
    GetInt(SOL_SOCKET, SO_SNDLOWAT),
    GetInt(SOL_SOCKET, SO_INCOMING_CPU),
    // tcp(7)
    Int(IPPROTO_TCP, TCP_NODELAY),
    Int(IPPROTO_TCP, TCP_MAXSEG),
    Int(IPPROTO_TCP, TCP_CORK),
    Int(IPPROTO_TCP, TCP_KEEPIDLE),
    Int(IPPROTO_TCP, TCP_KEEPINTVL),
    Int(IPPROTO_TCP, TCP_KEEPCNT),
    Int(IPPROTO_TCP, TCP_SYNCNT),
    Int(IPPROTO_TCP, TCP_LINGER2),
    Int(IPPROTO_TCP, TCP_DEFER_ACCEPT),
    Int(IPPROTO_TCP, TCP_WINDOW_CLAMP),
    Int(IPPROTO_TCP, TCP_QUICKACK),
    Int(IPPROTO_TCP, TCP_USER_TIMEOUT),
    Int(IPPROTO_TCP, TCP_FASTOPEN),
    Int(IPPROTO_TCP, TCP_FASTOPEN_CONNECT),
    Int(IPPROTO_TCP, TCP_NOTSENT_LOWAT),
    {IPPROTO_TCP, TCP_CONGESTION, 1, kName, kName},
    {IPPROTO_TCP, TCP_INFO, 0, 0, kTcpInfo},
    // udp(7)
    Int(IPPROTO_UDP, UDP_CORK),
    Int(IPPROTO_UDP, UDP_SEGMENT),
    Int(IPPROTO_UDP, UDP_GRO),
    // ip(7)
    IpInt(IP_TOS),
    IpInt(IP_TTL),
    IpInt(IP_MINTTL),
    IpInt(IP_MTU_DISCOVER),
    IpInt(IP_RECVERR),
    IpInt(IP_PKTINFO),
    IpInt(IP_RECVTTL),
    IpInt(IP_RECVTOS),
    IpInt(IP_FREEBIND),
    IpInt(IP_BIND_ADDRESS_NO_PORT),
    IpInt(IP_MULTICAST_TTL),
    IpInt(IP_MULTICAST_LOOP),
    IpInt(IP_MULTICAST_ALL),
    {IPPROTO_IP, IP_MULTICAST_IF, sizeof(in_addr), sizeof(ip_mreqn), sizeof(in_addr)},
    {IPPROTO_IP, IP_ADD_MEMBERSHIP, sizeof(ip_mreq), sizeof(ip_mreqn), 0},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, sizeof(ip_mreq), sizeof(ip_mreqn), 0},
    {IPPROTO_IP, MCAST_JOIN_GROUP, sizeof(group_req), sizeof(group_req), 0},
    {IPPROTO_IP, MCAST_LEAVE_GROUP, sizeof(group_req), sizeof(group_req), 0},
    Int(IPPROTO_IP, IP_UNICAST_IF),
    IpInt(IP_RECVOPTS),
    IpInt(IP_RETOPTS),
    GetInt(IPPROTO_IP, IP_MTU),
    // ipv6(7)
    Int(IPPROTO_IPV6, IPV6_V6ONLY),
    Int(IPPROTO_IPV6, IPV6_UNICAST_HOPS),
    Int(IPPROTO_IPV6, IPV6_TCLASS),
    Int(IPPROTO_IPV6, IPV6_MTU_DISCOVER),
    Int(IPPROTO_IPV6, IPV6_DONTFRAG),
    Int(IPPROTO_IPV6, IPV6_RECVERR),
    Int(IPPROTO_IPV6, IPV6_RECVPKTINFO),
    Int(IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
    Int(IPPROTO_IPV6, IPV6_RECVTCLASS),
    Int(IPPROTO_IPV6, IPV6_AUTOFLOWLABEL),
    Int(IPPROTO_IPV6, IPV6_ADDR_PREFERENCES),
    Int(IPPROTO_IPV6, IPV6_MULTICAST_HOPS),
    Int(IPPROTO_IPV6, IPV6_MULTICAST_LOOP),
    Int(IPPROTO_IPV6, IPV6_MULTICAST_ALL),
    Int(IPPROTO_IPV6, IPV6_MULTICAST_IF),
    {IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, sizeof(ipv6_mreq), sizeof(ipv6_mreq), 0},
    {IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, sizeof(ipv6_mreq), sizeof(ipv6_mreq), 0},
    {IPPROTO_IPV6, MCAST_JOIN_GROUP, sizeof(group_req), sizeof(group_req), 0},
    {IPPROTO_IPV6, MCAST_LEAVE_GROUP, sizeof(group_req), sizeof(group_req), 0},
    Int(IPPROTO_IPV6, IPV6_UNICAST_IF),
    Int(IPPROTO_IPV6, IPV6_FREEBIND),
    Int(IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    GetInt(IPPROTO_IPV6, IPV6_MTU),
};

struct ControlKind {
  int level;
  int type;
  size_t least, most;
};

constexpr ControlKind kSent[] = {
    {IPPROTO_IP, IP_PKTINFO, sizeof(in_pktinfo), sizeof(in_pktinfo)},
    {IPPROTO_IP, IP_TTL, kInt, kInt},
    {IPPROTO_IP, IP_TOS, 1, kInt},
    {IPPROTO_IPV6, IPV6_PKTINFO, sizeof(in6_pktinfo), sizeof(in6_pktinfo)},
    {IPPROTO_IPV6, IPV6_HOPLIMIT, kInt, kInt},
    {IPPROTO_IPV6, IPV6_TCLASS, kInt, kInt},
    {IPPROTO_IPV6, IPV6_DONTFRAG, kInt, kInt},
    {IPPROTO_UDP, UDP_SEGMENT, sizeof(uint16_t), sizeof(uint16_t)},
};

constexpr size_t kError = sizeof(sock_extended_err);
constexpr ControlKind kReceived[] = {
    {SOL_SOCKET, SO_TIMESTAMP, sizeof(timeval), sizeof(timeval)},
    {SOL_SOCKET, SO_TIMESTAMPNS, sizeof(timespec), sizeof(timespec)},
    {SOL_SOCKET, SO_RXQ_OVFL, sizeof(uint32_t), sizeof(uint32_t)},
    {IPPROTO_IP, IP_PKTINFO, sizeof(in_pktinfo), sizeof(in_pktinfo)},
    {IPPROTO_IP, IP_TTL, kInt, kInt},
    {IPPROTO_IP, IP_TOS, 1, 1},
    {IPPROTO_IP, IP_RECVERR, kError, kError + sizeof(sockaddr_in6)},
    {IPPROTO_IPV6, IPV6_PKTINFO, sizeof(in6_pktinfo), sizeof(in6_pktinfo)},
    {IPPROTO_IPV6, IPV6_HOPLIMIT, kInt, kInt},
    {IPPROTO_IPV6, IPV6_TCLASS, kInt, kInt},
    {IPPROTO_IPV6, IPV6_RECVERR, kError, kError + sizeof(sockaddr_in6)},
    {IPPROTO_UDP, UDP_GRO, kInt, kInt},
};

const ControlKind* Find(std::span<const ControlKind> kinds, int level, int type, size_t size) {
  auto found = std::ranges::find_if(kinds, [&](const ControlKind& k) {
    return k.level == level && k.type == type && size >= k.least && size <= k.most;
  });
  return found == kinds.end() ? nullptr : &*found;
}

// ip(7)'s go to IPv6 sockets too, which speak to mapped addresses; ipv6(7)'s to IPv6 sockets alone.
bool LevelCounts(int family, int level) {
  return level == IPPROTO_UDP || level == IPPROTO_IP || (level == IPPROTO_IPV6 && family == AF_INET6);
}

}  // namespace

std::span<const Option> Options() { return kOptions; }

const Option* FindOption(int level, int name) {
  auto found = std::ranges::find_if(kOptions, [&](const Option& o) { return o.level == level && o.name == name; });
  return found == std::end(kOptions) ? nullptr : found;
}

Result<std::vector<std::byte>> EncodeControl(int family, std::span<const socket::Control> control) {
  std::vector<std::byte> bytes;
  for (const socket::Control& c : control) {
    if (!LevelCounts(family, c.level)) continue;
    if (Find(kSent, c.level, c.type, c.data.size()) == nullptr) return Err(EINVAL);
    const cmsghdr header{.cmsg_len = CMSG_LEN(c.data.size()), .cmsg_level = c.level, .cmsg_type = c.type};
    const size_t at = bytes.size();
    bytes.resize(at + CMSG_SPACE(c.data.size()));
    std::memcpy(bytes.data() + at, &header, sizeof(header));
    std::memcpy(bytes.data() + at + sizeof(header), c.data.data(), c.data.size());
  }
  return bytes;
}

std::vector<socket::Control> DecodeControl(std::span<const std::byte> bytes) {
  std::vector<socket::Control> control;
  while (bytes.size() >= sizeof(cmsghdr)) {
    cmsghdr header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (header.cmsg_len < sizeof(header) || header.cmsg_len > bytes.size()) break;
    const std::span<const std::byte> data = bytes.subspan(sizeof(header), header.cmsg_len - sizeof(header));
    if (Find(kReceived, header.cmsg_level, header.cmsg_type, data.size()) != nullptr) {
      control.push_back(
          {.level = header.cmsg_level, .type = header.cmsg_type, .data = std::vector(data.begin(), data.end())});
    }
    bytes = bytes.subspan(std::min(bytes.size(), CMSG_ALIGN(header.cmsg_len)));
  }
  return control;
}

}  // namespace redoubt::hostinet
