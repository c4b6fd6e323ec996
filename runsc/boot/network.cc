#include "runsc/boot/network.h"

#include <fmt/core.h>
#include <net/if.h>

#include <algorithm>
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

constexpr uint32_t kShownFlags =
    IFF_BROADCAST | IFF_LOOPBACK | IFF_POINTOPOINT | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI | IFF_MULTICAST;

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

// An interface to look at.
class ShownLink final : public netstack::LinkEndpoint {
 public:
  explicit ShownLink(const NetworkLink& link) : mtu_(link.mtu), mac_(link.mac), type_(link.type) {}

  uint32_t mtu() const override { return mtu_; }
  netstack::LinkCaps caps() const override { return 0; }
  size_t header_size() const override { return 0; }
  netstack::LinkAddress address() const override { return mac_; }
  uint16_t hardware_type() const override { return type_; }
  void Attach(netstack::LinkDispatcher*) override {}
  size_t Write(netstack::PacketList) override { return 0; }

 private:
  const uint32_t mtu_;
  const netstack::LinkAddress mac_;
  const uint16_t type_;
};

void NotShown(const std::string& what, Errno e) { LOG_WARNING("network: {} is not shown: {}", what, e.name()); }

void ShowLink(netstack::Stack& stack, const NetworkLink& link) {
  RefPtr<Interface> interface;
  if ((link.flags & IFF_LOOPBACK) != 0) interface = stack.FindInterface(link.name);
  if (interface) {
    // Addresses of its own that the host's has not.
    for (const netstack::InterfaceAddress& a : interface->Addresses()) {
      if (std::ranges::none_of(link.addresses, [&](const NetworkAddress& n) { return n.prefix == a.prefix; })) {
        (void)interface->RemoveAddress(a.prefix.address);
      }
    }
  } else {
    Result<RefPtr<Interface>> added = stack.AddInterface({.name = link.name,
                                                          .link = std::make_unique<ShownLink>(link),
                                                          .mtu = link.mtu,
                                                          .autoconfigure = false,
                                                          .duplicate_probes = 0,
                                                          .index = link.index,
                                                          .flags = link.flags & kShownFlags});
    if (!added) return NotShown(fmt::format("interface {}", link.name), added.error());
    interface = std::move(*added);
  }
  interface->SetUp((link.flags & IFF_UP) != 0);
  for (const NetworkAddress& a : link.addresses) {
    if (Result<> r = interface->AddAddress({.prefix = a.prefix}); !r && r.error() != Errno(EEXIST)) {
      NotShown(fmt::format("{} on {}", a.prefix.ToString(), link.name), r.error());
    }
  }
}

}  // namespace

void ShowNetwork(inetsock::Network& network, const specutils::NetworkConfig& config) {
  for (const std::string& note : config.notes) LOG_WARNING("network: {}", note);
  netstack::Stack& stack = network.stack();
  for (const NetworkLink& link : config.links) ShowLink(stack, link);
  for (const netstack::RouteEntry& route : config.routes) {
    if (Result<> r = stack.routes().Add(route); !r && r.error() != Errno(EEXIST)) {
      NotShown(fmt::format("the route to {}", route.destination.ToString()), r.error());
    }
  }
}

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
