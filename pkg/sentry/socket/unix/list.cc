// What there is, for those who look from outside.
#include <fmt/format.h>

#include <algorithm>

#include "pkg/sentry/socket/unix/unix.h"
#include "pkg/sentry/socket/unix/unix_socket.h"

namespace redoubt::unixsock {

void Endpoint::Describe(SocketInfo& info) const {
  RefPtr<Endpoint> to;
  info.type = type_;
  {
    sync::MutexLock lock(mu_);
    info.listening = state_ == State::kListening;
    info.connected = state_ == State::kConnected;
    info.receive_shutdown = receive_shutdown_;
    info.send_shutdown = send_shutdown_;
    info.name = name_;
    to = peer_;
    if (info.listening) {
      info.receive_queue = static_cast<uint32_t>(pending_.size());
      info.send_queue = static_cast<uint32_t>(backlog_);
    }
  }
  if (to) info.peer_ino = to->ino_.load(std::memory_order_relaxed);
  if (info.listening) return;
  info.receive_queue = static_cast<uint32_t>(Readable().value_or(0));
  info.send_queue = static_cast<uint32_t>(Unread().value_or(0));
}

SocketInfo UnixSocket::Describe() const {
  SocketInfo info{.owner = socket::OwnerOf(*this)};
  endpoint_->Describe(info);
  return info;
}

std::vector<SocketInfo> Sockets() {
  std::vector<SocketInfo> all;
  for (const RefPtr<socket::Socket>& s : socket::SocketsOf(AF_UNIX)) {
    if (RefPtr<UnixSocket> u = RefCast<UnixSocket>(s)) all.push_back(u->Describe());
  }
  return all;
}

std::string NetTable() {
  constexpr uint32_t kAcceptsConnections = 0x10000;  // __SO_ACCEPTCON
  constexpr int kUnconnected = 1, kConnected = 3;    // SS_UNCONNECTED, SS_CONNECTED of linux/net.h
  std::string table;
  for (const SocketInfo& s : Sockets()) {
    table += fmt::format("{:016x}: {:08X} {:08X} {:08X} {:04X} {:02X} {:5}", 0, s.connected ? 3 : 2, 0,
                         s.listening ? kAcceptsConnections : 0, s.type, s.connected ? kConnected : kUnconnected,
                         s.owner.ino);
    if (!s.name.empty()) {
      // Zeros of abstract names, the first and those inside, are shown as '@'.
      std::string name = s.name;
      std::ranges::replace(name, '\0', '@');
      table += " " + name;
    }
    table += "\n";
  }
  return table;
}

}  // namespace redoubt::unixsock
