// Puts what the CLI took over of a network namespace (runsc/sandbox/network.h) into the sandbox's network.
#ifndef REDOUBT_RUNSC_BOOT_NETWORK_H_
#define REDOUBT_RUNSC_BOOT_NETWORK_H_

#include <vector>

#include "pkg/fd/unique_fd.h"
#include "pkg/sentry/socket/inet/link_events.h"
#include "pkg/sentry/socket/inet/network.h"
#include "runsc/specutils/network.h"
#include "runsc/specutils/spec.h"

namespace redoubt::boot {

// Adds an interface for each link, with its addresses, up, received for by `events`, and then the routes. `sockets` go
// with config.links, in order; they stay open as long as the process lives, since the interfaces do. Any thread; at any
// time before the guest's first instruction. A failure may leave some of it done: the sandbox is then not to be
// started.
specutils::Expected<void> ConfigureNetwork(inetsock::Network& network, inetsock::LinkEvents& events,
                                           const specutils::NetworkConfig& config, std::vector<UniqueFd> sockets);

// --network=host: interfaces with the host's names, numbers, addresses and routes, over which nothing goes, for
// /proc/net, netdevice(7) and rtnetlink(7) to tell of. What the netstack cannot show is left out, with a line in the
// log.
void ShowNetwork(inetsock::Network& network, const specutils::NetworkConfig& config);

}  // namespace redoubt::boot

#endif  // REDOUBT_RUNSC_BOOT_NETWORK_H_
