#include <fmt/core.h>
#include <linux/if_addr.h>
#include <net/if.h>
#include <net/if_arp.h>

#include <algorithm>
#include <map>
#include <optional>

#include "runsc/sandbox/host_network.h"
#include "runsc/sandbox/ipv6_switch.h"
#include "runsc/sandbox/rtnetlink.h"

namespace redoubt::sandbox {
namespace {

using netstack::Address;
using netstack::Prefix;
using netstack::RouteEntry;
using specutils::Expected;
using specutils::NetworkAddress;
using specutils::NetworkConfig;
using specutils::NetworkLink;

// As many as the sandbox's stack takes.
constexpr size_t kMaxLinks = 64;
constexpr size_t kMaxLinksSeen = 500;
constexpr size_t kMaxAddresses = 200;
constexpr size_t kMaxRoutes = 4000;

// An interface as the host has it.
struct HostLink {
  uint32_t master = 0;
  size_t mac_size = 0;
  NetworkLink link;

  bool is(uint32_t flag) const { return (link.flags & flag) != 0; }
  bool ethernet() const { return link.type == ARPHRD_ETHER && mac_size == link.mac.bytes.size(); }
  bool takeable() const { return !is(IFF_LOOPBACK) && is(IFF_UP) && master == 0 && ethernet(); }
};

std::string Text(Bytes bytes) {
  std::string s;
  for (std::byte b : bytes) {
    if (b == std::byte{0}) break;
    s.push_back(static_cast<char>(b));
  }
  return s;
}

class Reader final {
 public:
  Reader(Rtnetlink netlink, Wanted wanted) : netlink_(std::move(netlink)), all_(wanted == Wanted::kAll) {}

  Expected<NetworkConfig> Read() {
    if (auto r = netlink_.Dump(RtRequest(RTM_GETLINK, 0, ifinfomsg{}), [&](uint16_t, Bytes b) { OnLink(b); }); !r) {
      return std::unexpected(r.error());
    }
    if (auto r = netlink_.Dump(RtRequest(RTM_GETADDR, 0, ifaddrmsg{}), [&](uint16_t, Bytes b) { OnAddress(b); }); !r) {
      return std::unexpected(r.error());
    }
    for (int family : {AF_INET, AF_INET6}) {
      rtmsg header{.rtm_family = static_cast<unsigned char>(family)};
      if (auto r = netlink_.Dump(RtRequest(RTM_GETROUTE, 0, header), [&](uint16_t, Bytes b) { OnRoute(b); }); !r) {
        return std::unexpected(r.error());
      }
    }
    for (auto& [index, l] : links_) {
      if (usable(l)) {
        if (all_ && config_.links.size() == kMaxLinksSeen) {
          Note(fmt::format("interfaces from {} on were left out: there are too many", l.link.name));
          break;
        }
        config_.links.push_back(std::move(l.link));
        continue;
      }
      if (l.is(IFF_LOOPBACK) || l.link.addresses.empty()) continue;
      if (!l.is(IFF_UP)) {
        Note(fmt::format("interface {} is down and was left out", l.link.name));
      } else {
        return std::unexpected(fmt::format(
            "interface {} {}, and cannot be taken over; take its addresses away, or use --network=none", l.link.name,
            l.master != 0 ? "is part of another"
                          : fmt::format("is no Ethernet (it is of ARPHRD type {})", l.link.type)));
      }
    }
    if (all_) return std::move(config_);
    if (config_.links.size() > kMaxLinks) {
      return std::unexpected(fmt::format("there are {} interfaces; {} is the most", config_.links.size(), kMaxLinks));
    }
    if (config_.links.empty()) {
      Note("no interface of the network namespace is up, except the loopback: the sandbox has a loopback only");
    }
    return std::move(config_);
  }

 private:
  bool usable(const HostLink& l) const { return all_ || l.takeable(); }

  void Note(std::string text) {
    if (config_.notes.size() < 100) config_.notes.push_back(std::move(text));
  }

  void OnLink(Bytes body) {
    auto info = ReadAs<ifinfomsg>(body);
    HostLink l;
    l.link.flags = info.ifi_flags;
    l.link.type = info.ifi_type;
    l.link.index = static_cast<uint32_t>(info.ifi_index);
    ForEachAttribute(body.subspan(std::min(sizeof(info), body.size())), [&](uint16_t type, Bytes value) {
      switch (type) {
        case IFLA_IFNAME:
          l.link.name = Text(value);
          break;
        case IFLA_MTU:
          l.link.mtu = ReadAs<uint32_t>(value);
          break;
        case IFLA_MASTER:
          l.master = ReadAs<uint32_t>(value);
          break;
        case IFLA_ADDRESS:
          l.mac_size = value.size();
          l.link.mac = ReadAs<netstack::LinkAddress>(value);
          break;
        default:
          break;
      }
    });
    l.link.ipv6 = Ipv6Enabled(l.link.name);
    links_[l.link.index] = std::move(l);
  }

  void OnAddress(Bytes body) {
    auto info = ReadAs<ifaddrmsg>(body);
    Address local, prefix;
    uint32_t flags = info.ifa_flags;
    NetworkAddress a;
    ForEachAttribute(body.subspan(std::min(sizeof(info), body.size())), [&](uint16_t type, Bytes value) {
      switch (type) {
        case IFA_LOCAL:
          local = Address::FromBytes(value);
          break;
        case IFA_ADDRESS:
          prefix = Address::FromBytes(value);
          break;
        case IFA_FLAGS:
          flags = ReadAs<uint32_t>(value);
          break;
        case IFA_CACHEINFO: {
          auto times = ReadAs<ifa_cacheinfo>(value);
          a.preferred = times.ifa_prefered;
          a.valid = times.ifa_valid;
          break;
        }
        default:
          break;
      }
    });
    auto found = links_.find(info.ifa_index);
    if (found == links_.end()) return;
    NetworkLink& link = found->second.link;
    const bool peer = !local.empty() && !prefix.empty() && local != prefix;
    if (local.empty()) local = prefix;
    if (local.empty()) return;
    if ((flags & IFA_F_DADFAILED) != 0) {
      Note(fmt::format("{} on {} is in use by another station and was left out", local.ToString(), link.name));
      return;
    }
    // The sandbox's stack makes this one by itself, if it is to use it.
    if (!all_ && local.is_ipv6() && local == Eui64Address(*Address::Parse("fe80::"), link.mac)) return;
    // The route to a peer comes with the routes.
    a.prefix = {local, peer ? static_cast<uint8_t>(8 * local.size()) : info.ifa_prefixlen};
    a.from_router = local.is_ipv6() && (flags & IFA_F_PERMANENT) == 0 && a.prefix.length == 64 &&
                    local == Eui64Address(a.prefix.Network(), link.mac);
    if (link.addresses.size() >= kMaxAddresses) {
      Note(fmt::format("{} on {} was left out: there are too many addresses", local.ToString(), link.name));
      return;
    }
    link.addresses.push_back(a);
  }

  void OnRoute(Bytes body) {
    auto info = ReadAs<rtmsg>(body);
    uint32_t table = info.rtm_table;
    RouteEntry r;
    r.type = static_cast<netstack::RouteType>(info.rtm_type);
    r.protocol = info.rtm_protocol;
    r.destination = {Address::Any(info.rtm_family == AF_INET ? netstack::Family::kIpv4 : netstack::Family::kIpv6),
                     info.rtm_dst_len};
    bool multipath = false, via = false;
    ForEachAttribute(body.subspan(std::min(sizeof(info), body.size())), [&](uint16_t type, Bytes value) {
      switch (type) {
        case RTA_TABLE:
          table = ReadAs<uint32_t>(value);
          break;
        case RTA_DST:
          r.destination.address = Address::FromBytes(value);
          break;
        case RTA_GATEWAY:
          r.gateway = Address::FromBytes(value);
          break;
        case RTA_OIF:
          r.interface_index = ReadAs<uint32_t>(value);
          break;
        case RTA_PRIORITY:
          r.metric = ReadAs<uint32_t>(value);
          break;
        case RTA_PREFSRC:
          r.source = Address::FromBytes(value);
          break;
        case RTA_VIA:
          via = true;
          break;
        case RTA_METRICS:
          ForEachAttribute(value, [&](uint16_t metric, Bytes v) {
            if (metric == RTAX_MTU) r.mtu = ReadAs<uint32_t>(v);
          });
          break;
        case RTA_MULTIPATH: {
          // The first of them.
          multipath = true;
          auto hop = ReadAs<rtnexthop>(value);
          r.interface_index = static_cast<uint32_t>(hop.rtnh_ifindex);
          size_t end = std::min<size_t>(hop.rtnh_len, value.size());
          if (end > sizeof(hop)) {
            ForEachAttribute(value.subspan(sizeof(hop), end - sizeof(hop)), [&](uint16_t t, Bytes v) {
              if (t == RTA_GATEWAY) r.gateway = Address::FromBytes(v);
              if (t == RTA_VIA) via = true;
            });
          }
          break;
        }
        default:
          break;
      }
    });
    const bool unicast = info.rtm_type == RTN_UNICAST;
    const bool refusing =
        info.rtm_type == RTN_BLACKHOLE || info.rtm_type == RTN_UNREACHABLE || info.rtm_type == RTN_PROHIBIT;
    if (table != RT_TABLE_MAIN || (info.rtm_flags & RTM_F_CLONED) != 0 || (!unicast && !refusing)) return;
    if (r.destination.address.empty() || r.destination.length > 8 * r.destination.address.size()) return;
    const std::string name = fmt::format("route {}/{}", r.destination.address.ToString(), r.destination.length);
    if (refusing) {
      r.interface_index = 0;
    } else {
      auto link = links_.find(r.interface_index);
      if (link == links_.end() || link->second.is(IFF_LOOPBACK)) return;
      if (!usable(link->second)) {
        Note(fmt::format("{} through {} was left out", name, link->second.link.name));
        return;
      }
      // Kernels list an own address, and the link-local network, which the sandbox's stack knows by itself.
      if (r.gateway.empty() && r.destination.address.is_ipv6() &&
          (r.destination.address.IsLinkLocal() || IsOwn(r.destination))) {
        return;
      }
    }
    if (via || info.rtm_tos != 0 || info.rtm_src_len != 0) {
      Note(fmt::format("{} was left out: a next hop of the other IP version, by type of service or by source", name));
      return;
    }
    if (multipath) Note(fmt::format("{}: of several next hops the first is used", name));
    if (config_.routes.size() >= kMaxRoutes) {
      Note(fmt::format("{} was left out: there are too many routes", name));
      return;
    }
    config_.routes.push_back(r);
  }

  bool IsOwn(const Prefix& p) const {
    if (p.length != 8 * p.address.size()) return false;
    return std::ranges::any_of(links_, [&](const auto& entry) {
      return std::ranges::any_of(entry.second.link.addresses,
                                 [&](const NetworkAddress& a) { return a.prefix.address == p.address; });
    });
  }

  Rtnetlink netlink_;
  const bool all_;
  std::map<uint32_t, HostLink> links_;  // by index
  NetworkConfig config_;
};

}  // namespace

Expected<NetworkConfig> ReadHostNetwork(Wanted wanted) {
  Expected<Rtnetlink> netlink = Rtnetlink::Open();
  if (!netlink) return std::unexpected(netlink.error());
  return Reader(std::move(*netlink), wanted).Read();
}

}  // namespace redoubt::sandbox
