#include "pkg/sentry/socket/inet/inet_socket.h"

#include <linux/capability.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <climits>
#include <string>

namespace redoubt::inetsock {

Result<uint64_t> InetSocket::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  size_t bytes;
  switch (command) {
    case FIONREAD:
      bytes = TRY(Readable());
      break;
    case SIOCOUTQ:
      bytes = TRY(Unsent());
      break;
    default:
      return Socket::Ioctl(io, command, arg);
  }
  TRY(io.CopyOutObject<int32_t>(arg, static_cast<int32_t>(std::min<size_t>(bytes, INT_MAX))));
  return 0;
}

Result<> InetSocket::CheckPort(const socket::Caller& caller, uint16_t port) {
  constexpr uint16_t kFirstUnprivileged = 1024;  // net.ipv4.ip_unprivileged_port_start
  if (port != 0 && port < kFirstUnprivileged && !caller.creds.HasCapability(CAP_NET_BIND_SERVICE)) return Err(EACCES);
  return {};
}

Result<uint32_t> InetSocket::InterfaceOption(std::span<const std::byte> value) const {
  std::string name;
  for (std::byte b : value.first(std::min<size_t>(value.size(), IFNAMSIZ - 1))) {
    if (b == std::byte{0}) break;
    name.push_back(static_cast<char>(b));
  }
  if (name.empty()) return uint32_t{0};
  RefPtr<netstack::Interface> interface = network_.stack().FindInterface(name);
  if (!interface) return Err(ENODEV);
  return interface->index();
}

Result<uint32_t> InetSocket::IndexOption(std::span<const std::byte> value) {
  const int index = TRY(socket::IntOption(value));
  if (index < 0) return Err(EINVAL);
  return static_cast<uint32_t>(index);
}

std::string InetSocket::InterfaceName(uint32_t index) const {
  RefPtr<netstack::Interface> interface = index != 0 ? network_.stack().FindInterface(index) : nullptr;
  return interface ? interface->name() : std::string();
}

}  // namespace redoubt::inetsock
