#include "runsc/boot/network.h"

#include <fmt/core.h>

#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "pkg/log/log.h"
#include "pkg/netstack/link/fd_link.h"

namespace redoubt::boot {
namespace {

using netstack::FdLink;
using netstack::Interface;
using specutils::Expected;
using specutils::NetworkAddress;
using specutils::NetworkLink;

std::unexpected<std::string> Failed(const std::string& what, Errno e) {
  return std::unexpected(fmt::format("cannot set up the network: {}: {} ({})", what, strerror(e.value()), e.name()));
}

Expected<RefPtr<Interface>> AddLink(netstack::Stack& stack, inetsock::LinkEvents& events, const NetworkLink& link,
                                    UniqueFd socket) {
  // Kept with the interface, for ever.
  const int fd = socket.release();
  auto endpoint = std::make_unique<FdLink>(FdLink::Options{
      .fd = fd, .kind = FdLink::Kind::kSocket, .mtu = link.mtu, .address = link.mac, .virtio_header = true});
  FdLink& frames = *endpoint;
  // Nobody else has the addresses: the host's stack has just had them.
  Result<RefPtr<Interface>> added = stack.AddInterface({.name = link.name,
                                                        .link = std::move(endpoint),
                                                        .mtu = link.mtu,
                                                        .autoconfigure = link.ipv6,
                                                        .duplicate_probes = 0});
  if (!added) return Failed(fmt::format("interface {}", link.name), added.error());
  Interface& interface = **added;
  for (const NetworkAddress& a : link.addresses) {
    const netstack::Time now = stack.Now();
    auto until = [now](uint32_t seconds) {
      return seconds == NetworkAddress::kForEver ? netstack::kNever : now + seconds * netstack::kSecond;
    };
    Result<> r = interface.AddAddress(
        {.prefix = a.prefix,
         .state = a.preferred == 0 ? netstack::AddressState::kDeprecated : netstack::AddressState::kPreferred,
         .origin = a.from_router ? netstack::AddressOrigin::kSlaac : netstack::AddressOrigin::kManual,
         .preferred_until = until(a.preferred),
         .valid_until = until(a.valid)});
    if (!r) return Failed(fmt::format("address {} on {}", a.prefix.ToString(), link.name), r.error());
  }
  interface.SetUp(true);
  if (Result<> r = events.Add(fd, frames); !r) return Failed(fmt::format("interface {}", link.name), r.error());
  return *added;
}

}  // namespace

Expected<void> ConfigureNetwork(inetsock::Network& network, inetsock::LinkEvents& events,
                                const specutils::NetworkConfig& config, std::vector<UniqueFd> sockets) {
  for (const std::string& note : config.notes) LOG_WARNING("network: {}", note);
  if (sockets.size() != config.links.size()) return std::unexpected("internal error: network: sockets are missing");
  netstack::Stack& stack = network.stack();
  std::map<uint32_t, uint32_t> indices;  // the host's to ours
  for (size_t i = 0; i < sockets.size(); i++) {
    Expected<RefPtr<Interface>> added = AddLink(stack, events, config.links[i], std::move(sockets[i]));
    if (!added) return std::unexpected(added.error());
    indices[config.links[i].index] = (*added)->index();
  }
  for (netstack::RouteEntry route : config.routes) {
    if (route.interface_index != 0) {
      auto index = indices.find(route.interface_index);
      if (index == indices.end()) return Failed(fmt::format("route {}", route.destination.ToString()), Errno(ENODEV));
      route.interface_index = index->second;
    }
    // Those of the addresses' own networks are there.
    if (Result<> r = stack.routes().Add(route); !r && r.error() != Errno(EEXIST)) {
      return Failed(fmt::format("route {}", route.destination.ToString()), r.error());
    }
  }
  return {};
}

}  // namespace redoubt::boot
