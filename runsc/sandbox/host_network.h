// What the host's stack has on the interfaces of the calling thread's network namespace: read, taken away, given back.
// For network.h, which sees to it that the namespace is not the machine's own.
#ifndef REDOUBT_RUNSC_SANDBOX_HOST_NETWORK_H_
#define REDOUBT_RUNSC_SANDBOX_HOST_NETWORK_H_

#include <cstdint>

#include "pkg/fd/unique_fd.h"
#include "runsc/specutils/network.h"
#include "runsc/specutils/spec.h"

namespace redoubt::sandbox {

enum class Wanted : uint8_t {
  // Ethernet interfaces that are up. An error if an interface of another kind has addresses.
  kTakeable,
  kAll,  // for who is only to see them
};
// Interfaces with their addresses, and the main table's routes through them; what is left out is noted. Changes
// nothing.
specutils::Expected<specutils::NetworkConfig> ReadHostNetwork(Wanted wanted);

// packet(7), bound to the interface: everything it receives, and not what is sent on it.
specutils::Expected<UniqueFd> OpenPacketSocket(const specutils::NetworkLink& link);

// IPv4 addresses one by one, IPv6 by disable_ipv6 (Documentation/networking/ip-sysctl), which keeps new ones away too.
specutils::Expected<void> RemoveAddresses(const specutils::NetworkConfig& config);
// All it can; the first failure.
specutils::Expected<void> RestoreAddresses(const specutils::NetworkConfig& config);

}  // namespace redoubt::sandbox

#endif  // REDOUBT_RUNSC_SANDBOX_HOST_NETWORK_H_
