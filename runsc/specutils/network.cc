#include "runsc/specutils/network.h"

#include <fmt/core.h>

#include <stdexcept>
#include <utility>

#include "runsc/msgpack/json.h"

namespace redoubt::specutils {
namespace {

using msgpack::Json;
using netstack::Address;
using netstack::Prefix;
using netstack::RouteEntry;

// "" is no address.
std::string ToText(const Address& a) { return a.empty() ? "" : a.ToString(); }

Address ToAddress(const Json& j) {
  std::string text = j;
  if (text.empty()) return {};
  std::optional<Address> a = Address::Parse(text);
  if (!a) throw std::invalid_argument(fmt::format("\"{}\" is no address", text));
  return *a;
}

Prefix ToPrefix(const Json& address, const Json& length) {
  Prefix p{ToAddress(address), length};
  if (p.length > 8 * p.address.size()) throw std::invalid_argument("a prefix is too long");
  return p;
}

netstack::LinkAddress ToLinkAddress(const Json& j) {
  netstack::LinkAddress mac;
  if (j.size() != mac.bytes.size()) throw std::invalid_argument("not a link address");
  for (size_t i = 0; i < mac.bytes.size(); i++) mac.bytes[i] = j.at(i);
  return mac;
}

}  // namespace

std::string SerializeNetwork(const NetworkConfig& config) {
  Json links = Json::array();
  for (const NetworkLink& l : config.links) {
    Json addresses = Json::array();
    for (const NetworkAddress& a : l.addresses) {
      addresses.push_back({ToText(a.prefix.address), a.prefix.length, a.preferred, a.valid, a.from_router});
    }
    links.push_back({{"name", l.name},
                     {"index", l.index},
                     {"mtu", l.mtu},
                     {"mac", l.mac.bytes},
                     {"ipv6", l.ipv6},
                     {"flags", l.flags},
                     {"type", l.type},
                     {"addresses", addresses}});
  }
  Json routes = Json::array();
  for (const RouteEntry& r : config.routes) {
    routes.push_back({{"destination", ToText(r.destination.address)},
                      {"length", r.destination.length},
                      {"gateway", ToText(r.gateway)},
                      {"index", r.interface_index},
                      {"metric", r.metric},
                      {"source", ToText(r.source)},
                      {"mtu", r.mtu},
                      {"type", r.type},
                      {"protocol", r.protocol}});
  }
  return msgpack::Pack({{"links", links}, {"routes", routes}, {"notes", config.notes}});
}

Expected<NetworkConfig> DeserializeNetwork(const std::string& text) {
  auto config = msgpack::Unpack<NetworkConfig>(text, [](const Json& j, NetworkConfig& config) {
    for (const Json& l : j.at("links")) {
      NetworkLink link{.name = l.at("name"),
                       .index = l.at("index"),
                       .mtu = l.at("mtu"),
                       .mac = ToLinkAddress(l.at("mac")),
                       .ipv6 = l.at("ipv6"),
                       .flags = l.at("flags"),
                       .type = l.at("type"),
                       .addresses = {}};
      for (const Json& a : l.at("addresses")) {
        link.addresses.push_back(
            {.prefix = ToPrefix(a.at(0), a.at(1)), .preferred = a.at(2), .valid = a.at(3), .from_router = a.at(4)});
      }
      config.links.push_back(std::move(link));
    }
    for (const Json& r : j.at("routes")) {
      config.routes.push_back({.destination = ToPrefix(r.at("destination"), r.at("length")),
                               .gateway = ToAddress(r.at("gateway")),
                               .interface_index = r.at("index"),
                               .metric = r.at("metric"),
                               .source = ToAddress(r.at("source")),
                               .mtu = r.at("mtu"),
                               .type = r.at("type"),
                               .protocol = r.at("protocol")});
    }
    config.notes = j.at("notes").get<std::vector<std::string>>();
  });
  if (!config) {
    return std::unexpected(fmt::format("internal error: network configuration: {}", config.error()));
  }
  return *std::move(config);
}

}  // namespace redoubt::specutils
