// What a sandbox takes over of a network namespace, or is only told of it, and how the CLI hands it to the boot
// process.
#ifndef REDOUBT_RUNSC_SPECUTILS_NETWORK_H_
#define REDOUBT_RUNSC_SPECUTILS_NETWORK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/routing/routing_table.h"
#include "runsc/specutils/spec.h"

namespace redoubt::specutils {

struct NetworkAddress {
  static constexpr uint32_t kForEver = 0xffffffff;  // as in struct ifa_cacheinfo

  netstack::Prefix prefix;
  uint32_t preferred = kForEver, valid = kForEver;  // seconds left
  bool from_router = false;                         // SLAAC keeps it alive
  friend bool operator==(const NetworkAddress&, const NetworkAddress&) = default;
};

struct NetworkLink {
  std::string name;
  uint32_t index = 0;  // the host's; routes name it
  uint32_t mtu = 0;
  netstack::LinkAddress mac;
  bool ipv6 = false;   // the host's stack spoke IPv6 on it (disable_ipv6 was 0)
  uint32_t flags = 0;  // IFF_* (netdevice(7))
  uint16_t type = 0;   // ARPHRD_*
  std::vector<NetworkAddress> addresses;
  friend bool operator==(const NetworkLink&, const NetworkLink&) = default;
};

struct NetworkConfig {
  std::vector<NetworkLink> links;            // if they were taken, a packet socket each goes with them, in this order
  std::vector<netstack::RouteEntry> routes;  // interface_index: the host's
  std::vector<std::string> notes;            // what could not be taken over, a line each, for the log
  friend bool operator==(const NetworkConfig&, const NetworkConfig&) = default;
};

std::string SerializeNetwork(const NetworkConfig& config);
Expected<NetworkConfig> DeserializeNetwork(const std::string& text);

}  // namespace redoubt::specutils

#endif  // REDOUBT_RUNSC_SPECUTILS_NETWORK_H_
