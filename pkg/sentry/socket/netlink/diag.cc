#include "pkg/sentry/socket/netlink/diag.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>

#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/udp/udp.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::netlink {
namespace {

using netstack::Address;
using netstack::Family;
using netstack::SocketAddress;

constexpr uint8_t kEstablished = 1, kClosed = 7;  // TCP_ESTABLISHED, TCP_CLOSE, which UDP uses too

void PutAddress(uint32_t (&to)[4], Address a, Family family) {
  if (a.empty()) a = Address::Any(family);
  if (family == Family::kIpv6 && a.is_ipv4()) a = a.ToV4Mapped();
  std::memcpy(to, a.bytes().data(), std::min(sizeof(to), a.size()));
}

struct Socket {
  Family family = Family::kNone;
  uint8_t state = 0;
  SocketAddress local, peer;
  uint32_t receive_queue = 0, send_queue = 0;
  socket::SocketOwner owner;
};

inet_diag_msg Describe(const Socket& s) {
  inet_diag_msg m{};
  m.idiag_family = s.family == Family::kIpv4 ? AF_INET : AF_INET6;
  m.idiag_state = s.state;
  m.id.idiag_sport = htons(s.local.port);
  m.id.idiag_dport = htons(s.peer.port);
  PutAddress(m.id.idiag_src, s.local.address, s.family);
  PutAddress(m.id.idiag_dst, s.peer.address, s.family);
  m.id.idiag_cookie[0] = m.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  m.idiag_rqueue = s.receive_queue;
  m.idiag_wqueue = s.send_queue;
  m.idiag_uid = s.owner.uid;
  m.idiag_inode = static_cast<uint32_t>(s.owner.ino);
  return m;
}

}  // namespace

Result<> DiagProtocol::Handle(Request& r) {
  if (r.message.header.nlmsg_type != SOCK_DIAG_BY_FAMILY) return Err(EINVAL);
  if (r.message.payload.size() < sizeof(sock_diag_req)) return Err(EINVAL);
  switch (r.message.Header<sock_diag_req>().sdiag_family) {
    case AF_INET:
    case AF_INET6:
      return HandleInet(r);
    case AF_UNIX:
      return HandleUnix(r);
    case AF_PACKET:
      return HandlePacket(r);
    default:
      return Err(ENOENT);  // as Linux without the module of that family
  }
}

Result<> DiagProtocol::HandleInet(Request& r) {
  const auto q = r.message.Header<inet_diag_req_v2>();
  if (r.message.payload.size() < sizeof(q)) return Err(EINVAL);
  if (q.sdiag_protocol != IPPROTO_TCP && q.sdiag_protocol != IPPROTO_UDP) return Err(ENOENT);
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(q)));
  if (!r.is_dump()) return r.Refuse(EOPNOTSUPP, "only dumps are implemented");
  if (attributes.Has(INET_DIAG_REQ_BYTECODE)) return r.Refuse(EOPNOTSUPP, "filter programs are not implemented");
  const Family family = q.sdiag_family == AF_INET ? Family::kIpv4 : Family::kIpv6;
  const socket::SocketOwners owners(q.sdiag_family);
  auto wanted = [&](const Socket& s) {
    return s.family == family && s.state < 32 && (q.idiag_states >> s.state & 1) != 0 &&
           (q.id.idiag_sport == 0 || q.id.idiag_sport == htons(s.local.port)) &&
           (q.id.idiag_dport == 0 || q.id.idiag_dport == htons(s.peer.port));
  };
  for (const inetsock::ListedSocket& o : network_.OtherSockets(family, q.sdiag_protocol)) {
    const Socket s{.family = family,
                   .state = o.state,
                   .local = o.local,
                   .peer = o.peer,
                   .receive_queue = o.receive_queue,
                   .send_queue = o.send_queue,
                   .owner = {.ino = o.ino, .uid = o.uid}};
    if (wanted(s)) r.Answer(SOCK_DIAG_BY_FAMILY, Describe(s));
  }
  if (q.sdiag_protocol == IPPROTO_TCP) {
    for (const RefPtr<netstack::tcp::Endpoint>& e : network_.tcp().Endpoints()) {
      const Socket s{.family = e->family(),
                     .state = static_cast<uint8_t>(e->state()),
                     .local = e->local(),
                     .peer = e->peer().value_or(SocketAddress{}),
                     .receive_queue = static_cast<uint32_t>(e->Readable()),
                     .send_queue = static_cast<uint32_t>(e->Unacknowledged()),
                     .owner = owners.Of(e.get())};
      if (!wanted(s)) continue;
      r.Answer(SOCK_DIAG_BY_FAMILY, Describe(s));
      if ((q.idiag_ext >> (INET_DIAG_INFO - 1) & 1) == 0) continue;
      std::array<std::byte, 512> info{};
      const size_t n = e->Info(info);
      if (n > 0) r.reply.Attribute(INET_DIAG_INFO, Bytes(info).first(n));
    }
    return {};
  }
  for (const RefPtr<netstack::UdpEndpoint>& e : network_.udp().Endpoints()) {
    const auto peer = e->peer();
    const Socket s{.family = e->family(),
                   .state = peer ? kEstablished : kClosed,
                   .local = e->local(),
                   .peer = peer.value_or(SocketAddress{}),
                   .receive_queue = static_cast<uint32_t>(e->ReceiveQueueBytes()),
                   .owner = owners.Of(static_cast<const netstack::DatagramEndpoint*>(e.get()))};
    if (wanted(s)) r.Answer(SOCK_DIAG_BY_FAMILY, Describe(s));
  }
  return {};
}

}  // namespace redoubt::netlink
