// sock_diag(7) of AF_UNIX and AF_PACKET: linux/unix_diag.h, linux/packet_diag.h.
#include <linux/packet_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include <array>

#include "pkg/sentry/socket/netlink/diag.h"
#include "pkg/sentry/socket/packet/packet.h"
#include "pkg/sentry/socket/unix/unix.h"

namespace redoubt::netlink {

namespace {

constexpr uint8_t kEstablished = 1, kClosed = 7, kListening = 10;  // TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN
constexpr uint32_t kNoCookie = ~uint32_t{0};                       // INET_DIAG_NOCOOKIE

void AnswerUnix(Request& r, const unixsock::SocketInfo& s, uint8_t state, uint32_t show) {
  unix_diag_msg m{};
  m.udiag_family = AF_UNIX;
  m.udiag_type = static_cast<uint8_t>(s.type);
  m.udiag_state = state;
  m.udiag_ino = static_cast<uint32_t>(s.owner.ino);
  m.udiag_cookie[0] = m.udiag_cookie[1] = kNoCookie;
  r.Answer(SOCK_DIAG_BY_FAMILY, m);
  if ((show & UDIAG_SHOW_NAME) != 0 && !s.name.empty()) {
    // Paths with their zero, as bind(2) got them.
    std::string name = s.name;
    if (name[0] != '\0') name.push_back('\0');
    r.reply.Attribute(UNIX_DIAG_NAME, std::as_bytes(std::span(name)));
  }
  if ((show & UDIAG_SHOW_PEER) != 0 && s.peer_ino != 0) {
    r.reply.Attribute(UNIX_DIAG_PEER, static_cast<uint32_t>(s.peer_ino));
  }
  if ((show & UDIAG_SHOW_RQLEN) != 0) {
    r.reply.Attribute(UNIX_DIAG_RQLEN, unix_diag_rqlen{.udiag_rqueue = s.receive_queue, .udiag_wqueue = s.send_queue});
  }
  if ((show & UDIAG_SHOW_UID) != 0) r.reply.Attribute(UNIX_DIAG_UID, s.owner.uid);
  r.reply.Attribute(UNIX_DIAG_SHUTDOWN, static_cast<uint8_t>((s.receive_shutdown ? 1 : 0) | (s.send_shutdown ? 2 : 0)));
}

}  // namespace

Result<> DiagProtocol::HandleUnix(Request& r) {
  const auto q = r.message.Header<unix_diag_req>();
  if (r.message.payload.size() < sizeof(q)) return Err(EINVAL);
  // One socket, by its inode, or all in some states.
  if (!r.is_dump() && q.udiag_ino == 0) return Err(EINVAL);
  for (const unixsock::SocketInfo& s : unixsock::Sockets()) {
    const uint8_t state = s.listening ? kListening : s.connected ? kEstablished : kClosed;
    if (r.is_dump()) {
      if ((q.udiag_states >> state & 1) != 0) AnswerUnix(r, s, state, q.udiag_show);
    } else if (q.udiag_ino == s.owner.ino) {
      AnswerUnix(r, s, state, q.udiag_show);
      return {};
    }
  }
  if (!r.is_dump()) return Err(ENOENT);
  return {};
}

Result<> DiagProtocol::HandlePacket(Request& r) {
  const auto q = r.message.Header<packet_diag_req>();
  if (r.message.payload.size() < sizeof(q) || q.sdiag_protocol != 0) return Err(EINVAL);
  if (!r.is_dump()) return r.Refuse(EOPNOTSUPP, "only dumps are implemented");
  for (const packetsock::SocketInfo& s : packetsock::Sockets()) {
    packet_diag_msg m{};
    m.pdiag_family = AF_PACKET;
    m.pdiag_type = static_cast<uint8_t>(s.type);
    m.pdiag_num = s.ethertype;
    m.pdiag_ino = static_cast<uint32_t>(s.owner.ino);
    m.pdiag_cookie[0] = m.pdiag_cookie[1] = kNoCookie;
    r.Answer(SOCK_DIAG_BY_FAMILY, m);
    if ((q.pdiag_show & PACKET_SHOW_INFO) != 0) {
      packet_diag_info info{};
      info.pdi_index = s.interface_index;
      info.pdi_flags = s.ethertype != 0 ? PDI_RUNNING : 0;
      r.reply.Attribute(PACKET_DIAG_INFO, info);
      r.reply.Attribute(PACKET_DIAG_UID, s.owner.uid);
    }
    if ((q.pdiag_show & PACKET_SHOW_MEMINFO) != 0) {
      std::array<uint32_t, SK_MEMINFO_VARS> memory{};
      memory[SK_MEMINFO_RMEM_ALLOC] = static_cast<uint32_t>(s.queued);
      r.reply.Attribute(PACKET_DIAG_MEMINFO, memory);
    }
  }
  return {};
}

}  // namespace redoubt::netlink
