#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include "pkg/sentry/socket/netlink/route.h"

namespace redoubt::netlink {

using netstack::Interface;

namespace {

constexpr uint32_t kLowerUp = 1 << 16;                           // IFF_LOWER_UP, which net/if.h lacks
constexpr uint32_t kQueueLength = 1000;                          // there is none; what Linux says of a new device
constexpr uint8_t kOperUnknown = 0, kOperDown = 2, kOperUp = 6;  // IF_OPER_*, RFC 2863

}  // namespace

void WriteLink(Writer& w, const Heading& heading, Interface& interface) {
  ifinfomsg info{};
  info.ifi_family = AF_UNSPEC;
  info.ifi_type = interface.link().hardware_type();
  info.ifi_index = static_cast<int>(interface.index());
  const bool up = interface.up();
  info.ifi_flags = interface.flags() | (up ? kLowerUp : 0u);
  w.Begin(heading.type, heading.flags, heading.sequence, heading.port, info);
  w.Text(IFLA_IFNAME, interface.name());
  w.Attribute(IFLA_TXQLEN, kQueueLength);
  w.Attribute(IFLA_OPERSTATE, interface.is_loopback() ? kOperUnknown : up ? kOperUp : kOperDown);
  w.Attribute(IFLA_LINKMODE, uint8_t{0});
  w.Attribute(IFLA_MTU, interface.mtu());
  w.Attribute(IFLA_MAX_MTU, interface.link().mtu());
  w.Attribute(IFLA_GROUP, uint32_t{0});
  w.Attribute(IFLA_PROMISCUITY, interface.promiscuity());
  w.Attribute(IFLA_NUM_TX_QUEUES, uint32_t{1});
  w.Attribute(IFLA_NUM_RX_QUEUES, uint32_t{1});
  w.Attribute(IFLA_CARRIER, uint8_t{1});
  w.Text(IFLA_QDISC, "noqueue");
  const netstack::LinkAddress address = interface.link_address();
  w.Attribute(IFLA_ADDRESS, address.bytes);
  w.Attribute(IFLA_BROADCAST,
              interface.is_loopback() ? netstack::LinkAddress{}.bytes : netstack::kBroadcastLinkAddress.bytes);
  const netstack::InterfaceStats& s = interface.stats();
  rtnl_link_stats64 stats{};
  stats.rx_packets = s.rx_packets;
  stats.tx_packets = s.tx_packets;
  stats.rx_bytes = s.rx_bytes;
  stats.tx_bytes = s.tx_bytes;
  stats.rx_errors = s.rx_errors;
  stats.tx_errors = s.tx_errors;
  stats.rx_dropped = s.rx_dropped;
  stats.tx_dropped = s.tx_dropped;
  stats.multicast = s.rx_multicast;
  w.Attribute(IFLA_STATS64, stats);
}

Result<RefPtr<Interface>> RouteProtocol::LinkOf(Request& r, int index, const Attributes& attributes) {
  RefPtr<Interface> found;
  if (index > 0) {
    found = stack_.FindInterface(static_cast<uint32_t>(index));
  } else if (attributes.Has(IFLA_IFNAME)) {
    found = stack_.FindInterface(attributes.Text(IFLA_IFNAME));
  } else if (attributes.Has(IFLA_ALT_IFNAME)) {
    found = stack_.FindInterface(attributes.Text(IFLA_ALT_IFNAME));
  } else {
    return r.Refuse(EINVAL, "neither index nor name of a link is given");
  }
  if (!found) return Err(ENODEV);
  return found;
}

Result<> RouteProtocol::GetLink(Request& r) {
  const auto info = r.message.Header<ifinfomsg>();
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(info)));
  if (r.is_dump()) {
    if (info.ifi_family == AF_BRIDGE) return {};  // there is none
    for (const RefPtr<Interface>& i : stack_.Interfaces()) WriteLink(r.reply, HeadingOf(r, RTM_NEWLINK), *i);
    return {};
  }
  if (r.message.payload.size() < sizeof(info)) return Err(EINVAL);
  RefPtr<Interface> found = TRY(LinkOf(r, info.ifi_index, attributes));
  WriteLink(r.reply, HeadingOf(r, RTM_NEWLINK), *found);
  return {};
}

// RTM_SETLINK, and RTM_NEWLINK of a link that is there: up, down, and the MTU.
Result<> RouteProtocol::SetLink(Request& r) {
  const auto info = r.message.Header<ifinfomsg>();
  if (r.message.payload.size() < sizeof(info)) return Err(EINVAL);
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(info)));
  Result<RefPtr<Interface>> found = LinkOf(r, info.ifi_index, attributes);
  if (r.message.header.nlmsg_type == RTM_NEWLINK) {
    if (!found && r.message.Has(NLM_F_CREATE)) return r.Refuse(EOPNOTSUPP, "links cannot be made here");
    if (found && r.message.Has(NLM_F_EXCL)) return Err(EEXIST);
  }
  if (!found) return Err(found.error());
  Interface& interface = **found;
  for (uint16_t type : {IFLA_ADDRESS, IFLA_MASTER, IFLA_NET_NS_PID, IFLA_NET_NS_FD}) {
    if (attributes.Has(type)) return r.Refuse(EOPNOTSUPP, "of a link only its state and its MTU can be changed");
  }
  if (info.ifi_index > 0 && attributes.Has(IFLA_IFNAME) && attributes.Text(IFLA_IFNAME) != interface.name()) {
    return r.Refuse(EOPNOTSUPP, "a link cannot be renamed");
  }
  if (attributes.Has(IFLA_MTU)) {
    const uint32_t mtu = TRY(attributes.ValueOr<uint32_t>(IFLA_MTU, 0));
    if (mtu > interface.link().mtu()) return r.Refuse(EINVAL, "mtu greater than device maximum");
    TRY(interface.SetMtu(mtu));
  }
  // Without a mask the flags are taken as they are (rtnetlink(7)).
  const uint32_t change = info.ifi_change != 0 ? info.ifi_change : info.ifi_flags != 0 ? ~0u : 0u;
  if ((change & IFF_UP) != 0) interface.SetUp((info.ifi_flags & IFF_UP) != 0);
  return {};
}

}  // namespace redoubt::netlink
