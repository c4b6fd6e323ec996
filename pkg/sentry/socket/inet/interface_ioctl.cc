#include "pkg/sentry/socket/inet/interface_ioctl.h"

#include <arpa/inet.h>
#include <linux/capability.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::inetsock {

namespace {

using netstack::Address;
using netstack::Interface;
using netstack::InterfaceAddress;

static_assert(sizeof(ifreq) == 40 && sizeof(ifconf) == 16);

void PutAddress(sockaddr& to, const Address& address) {
  sockaddr_in in{.sin_family = AF_INET};
  in.sin_addr.s_addr = htonl(address.ipv4_value());
  std::memcpy(&to, &in, sizeof(in));
}

void PutName(ifreq& request, const std::string& name) {
  std::memset(request.ifr_name, 0, sizeof(request.ifr_name));
  std::memcpy(request.ifr_name, name.data(), std::min<size_t>(name.size(), IFNAMSIZ - 1));
}

std::optional<InterfaceAddress> FirstIpv4(const Interface& interface) {
  for (const InterfaceAddress& a : interface.Addresses()) {
    if (a.prefix.address.is_ipv4()) return a;
  }
  return std::nullopt;
}

// The list of IPv4 addresses, as many as fit; without a buffer, how long it is.
Result<uint64_t> Configuration(netstack::Stack& stack, MemoryIo& io, uint64_t arg) {
  ifconf conf = TRY(io.CopyInObject<ifconf>(arg));
  if (conf.ifc_len < 0) return Err(EINVAL);
  const Addr buffer = reinterpret_cast<Addr>(conf.ifc_buf);
  size_t length = 0;
  for (const RefPtr<Interface>& interface : stack.Interfaces()) {
    for (const InterfaceAddress& a : interface->Addresses()) {
      if (!a.prefix.address.is_ipv4()) continue;
      if (buffer != 0) {
        if (length + sizeof(ifreq) > static_cast<size_t>(conf.ifc_len)) break;
        ifreq entry{};
        PutName(entry, interface->name());
        PutAddress(entry.ifr_addr, a.prefix.address);
        TRY(io.CopyOutObject(buffer + length, entry));
      }
      length += sizeof(ifreq);
    }
  }
  conf.ifc_len = static_cast<int>(length);
  TRY(io.CopyOutObject(arg, conf));
  return 0;
}

Result<> Answer(Interface& interface, uint32_t command, ifreq& request) {
  auto address = [&]() -> Result<InterfaceAddress> {
    std::optional<InterfaceAddress> a = FirstIpv4(interface);
    if (!a) return Err(EADDRNOTAVAIL);
    return *a;
  };
  switch (command) {
    case SIOCGIFNAME:
      PutName(request, interface.name());
      return {};
    case SIOCGIFINDEX:
      request.ifr_ifindex = static_cast<int>(interface.index());
      return {};
    case SIOCGIFFLAGS:
      request.ifr_flags = static_cast<int16_t>(interface.flags());
      return {};
    case SIOCGIFADDR:
      PutAddress(request.ifr_addr, TRY(address()).prefix.address);
      return {};
    case SIOCGIFNETMASK: {
      const uint8_t bits = TRY(address()).prefix.length;
      PutAddress(request.ifr_netmask, Address::Ipv4(bits == 0 ? 0u : ~uint32_t{0} << (32 - bits)));
      return {};
    }
    case SIOCGIFBRDADDR: {
      const Address broadcast = TRY(address()).prefix.Broadcast();
      PutAddress(request.ifr_broadaddr, interface.is_loopback() || broadcast.empty() ? Address::Ipv4(0u) : broadcast);
      return {};
    }
    case SIOCGIFMTU:
      request.ifr_mtu = static_cast<int>(interface.mtu());
      return {};
    case SIOCGIFHWADDR: {
      std::memset(&request.ifr_hwaddr, 0, sizeof(request.ifr_hwaddr));
      request.ifr_hwaddr.sa_family = interface.link().hardware_type();
      const netstack::LinkAddress link = interface.link_address();
      std::memcpy(request.ifr_hwaddr.sa_data, link.bytes.data(), link.bytes.size());
      return {};
    }
    case SIOCGIFTXQLEN:
      request.ifr_qlen = 1000;  // there is none; what Linux says of a new device
      return {};
    default:
      return Err(ENOTTY);
  }
}

// SIOCSIFFLAGS: of the flags only whether it is up.
Result<> Change(Interface& interface, uint32_t command, const ifreq& request) {
  const auth::Credentials* creds = vfs::CurrentCredentials();
  if (creds == nullptr || !creds->HasCapability(CAP_NET_ADMIN)) return Err(EPERM);
  if (command == SIOCSIFMTU) return interface.SetMtu(static_cast<uint32_t>(request.ifr_mtu));
  interface.SetUp((request.ifr_flags & IFF_UP) != 0);
  return {};
}

// SIOCETHTOOL: which offloads are on, as programs that capture ask so that they have room for super-segments.
Result<> AnswerEthtool(const Interface& interface, MemoryIo& io, Addr arg) {
  ethtool_value value{.cmd = TRY(io.CopyInObject<uint32_t>(arg)), .data = 0};
  const netstack::LinkCaps caps = interface.link().caps();
  switch (value.cmd) {
    case ETHTOOL_GTSO:
    case ETHTOOL_GGSO:
    case ETHTOOL_GGRO:
      value.data = (caps & netstack::kCapTcpGso) != 0;
      break;
    case ETHTOOL_GTXCSUM:
      value.data = (caps & netstack::kCapTxChecksum) != 0;
      break;
    case ETHTOOL_GRXCSUM:
      value.data = (caps & netstack::kCapRxChecksum) != 0;
      break;
    case ETHTOOL_GSG:
      value.data = 1;
      break;
    case ETHTOOL_GUFO:
    case ETHTOOL_GFLAGS:
      break;
    default:
      return Err(EOPNOTSUPP);
  }
  return io.CopyOutObject(arg, value);
}

}  // namespace

Result<uint64_t> InterfaceIoctls::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  switch (command) {
    case SIOCGIFCONF:
      return Configuration(stack_, io, arg);
    case SIOCGIFNAME:
    case SIOCGIFINDEX:
    case SIOCGIFFLAGS:
    case SIOCGIFADDR:
    case SIOCGIFNETMASK:
    case SIOCGIFBRDADDR:
    case SIOCGIFMTU:
    case SIOCGIFHWADDR:
    case SIOCGIFTXQLEN:
    case SIOCSIFFLAGS:
    case SIOCSIFMTU:
    case SIOCETHTOOL:
      break;
    default:
      return Err(ENOTTY);
  }
  ifreq request = TRY(io.CopyInObject<ifreq>(arg));
  RefPtr<Interface> interface;
  if (command == SIOCGIFNAME) {
    if (request.ifr_ifindex > 0) interface = stack_.FindInterface(static_cast<uint32_t>(request.ifr_ifindex));
  } else {
    request.ifr_name[IFNAMSIZ - 1] = '\0';
    interface = stack_.FindInterface(std::string_view(request.ifr_name));
  }
  if (!interface) return Err(ENODEV);
  if (command == SIOCETHTOOL) {
    TRY(AnswerEthtool(*interface, io, reinterpret_cast<Addr>(request.ifr_data)));
    return 0;
  }
  if (command == SIOCSIFFLAGS || command == SIOCSIFMTU) {
    if (network_.read_only()) return Err(EPERM);
    TRY(Change(*interface, command, request));
    return 0;
  }
  TRY(Answer(*interface, command, request));
  TRY(io.CopyOutObject(arg, request));
  return 0;
}

}  // namespace redoubt::inetsock
