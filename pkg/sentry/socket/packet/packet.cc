#include "pkg/sentry/socket/packet/packet.h"

#include <fmt/format.h>
#include <linux/capability.h>

#include <memory>
#include <utility>

#include "pkg/sentry/socket/packet/packet_socket.h"

namespace redoubt::packetsock {
namespace {

class Packets final : public socket::Family {
 public:
  Packets(inetsock::Network& network, pgalloc::MemoryFile& memory_file)
      : network_(network), memory_file_(memory_file) {}

  Result<RefPtr<socket::Socket>> Create(const socket::Caller& caller, int type, int protocol, int flags) override {
    if (!caller.creds.HasCapability(CAP_NET_RAW)) return Err(EPERM);
    // The obsolete SOCK_PACKET is not there.
    if (type != SOCK_RAW && type != SOCK_DGRAM) return Err(ESOCKTNOSUPPORT);
    return RefPtr<socket::Socket>(
        MakeRef<PacketSocket>(network_, memory_file_, socket::MakeSocketPath(caller.creds), type, protocol, flags));
  }

 private:
  inetsock::Network& network_;
  pgalloc::MemoryFile& memory_file_;
};

}  // namespace

void RegisterFamily(inetsock::Network& network, pgalloc::MemoryFile& memory_file) {
  // The sandbox has one network for ever; tests have one after another.
  static Packets* current = nullptr;
  auto next = std::make_unique<Packets>(network, memory_file);
  socket::RegisterFamily(AF_PACKET, *next);
  delete std::exchange(current, next.release());
}

std::vector<SocketInfo> Sockets() {
  std::vector<SocketInfo> all;
  for (const RefPtr<socket::Socket>& s : socket::SocketsOf(AF_PACKET)) {
    if (RefPtr<PacketSocket> p = RefCast<PacketSocket>(s)) all.push_back(p->Describe());
  }
  return all;
}

std::string NetTable() {
  std::string table;
  for (const SocketInfo& s : Sockets()) {
    table += fmt::format("{:016x} {:<6} {:<4} {:04x}   {:<5} {:1} {:<6} {:<6} {:<6}\n", 0, 3, s.type, s.ethertype,
                         s.interface_index, s.ethertype != 0 ? 1 : 0, s.queued, s.owner.uid, s.owner.ino);
  }
  return table;
}

}  // namespace redoubt::packetsock
