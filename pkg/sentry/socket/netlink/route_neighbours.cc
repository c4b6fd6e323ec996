#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "pkg/sentry/socket/netlink/route.h"

namespace redoubt::netlink {

using netstack::Family;
using netstack::Interface;
using netstack::NeighbourInfo;
using netstack::NeighbourState;

namespace {

uint16_t ToNud(NeighbourState state) {
  switch (state) {
    case NeighbourState::kIncomplete:
      return NUD_INCOMPLETE;
    case NeighbourState::kReachable:
      return NUD_REACHABLE;
    case NeighbourState::kStale:
      return NUD_STALE;
    case NeighbourState::kDelay:
      return NUD_DELAY;
    case NeighbourState::kProbe:
      return NUD_PROBE;
    case NeighbourState::kFailed:
      return NUD_FAILED;
    case NeighbourState::kPermanent:
      return NUD_PERMANENT;
  }
  return NUD_NONE;
}

}  // namespace

void WriteNeighbour(Writer& w, const Heading& heading, const Interface& interface, const NeighbourInfo& n) {
  ndmsg m{};
  m.ndm_family = FromFamily(n.address.family());
  m.ndm_ifindex = static_cast<int>(interface.index());
  m.ndm_state = ToNud(n.state);
  m.ndm_flags = n.is_router ? NTF_ROUTER : 0;
  m.ndm_type = RTN_UNICAST;
  w.Begin(heading.type, heading.flags, heading.sequence, heading.port, m);
  w.Attribute(NDA_DST, n.address.bytes());
  if (!n.link.IsUnspecified()) w.Attribute(NDA_LLADDR, n.link.bytes);
}

Result<> RouteProtocol::GetNeighbour(Request& r) {
  const auto m = r.message.Header<ndmsg>();
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(m)));
  const uint32_t index = TRY(attributes.ValueOr<uint32_t>(NDA_IFINDEX, 0));
  const Family wanted = ToFamily(m.ndm_family);
  if (m.ndm_family != AF_UNSPEC && wanted == Family::kNone) return {};
  if (!r.is_dump()) {
    RefPtr<Interface> i = stack_.FindInterface(static_cast<uint32_t>(std::max(0, m.ndm_ifindex)));
    if (!i) return Err(ENODEV);
    const netstack::Address address = TRY(AddressOf(attributes, NDA_DST, wanted));
    if (address.empty()) return r.Refuse(EINVAL, "no address is given");
    const std::optional<NeighbourInfo> n = i->neighbours(wanted).Find(address);
    if (!n) return Err(ENOENT);
    WriteNeighbour(r.reply, HeadingOf(r, RTM_NEWNEIGH), *i, *n);
    return {};
  }
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    if (wanted != Family::kNone && wanted != family) continue;
    for (const RefPtr<Interface>& i : stack_.Interfaces()) {
      if (index != 0 && i->index() != index) continue;
      for (const NeighbourInfo& n : i->neighbours(family).Entries())
        WriteNeighbour(r.reply, HeadingOf(r, RTM_NEWNEIGH), *i, n);
    }
  }
  return {};
}

Result<> RouteProtocol::ChangeNeighbour(Request& r, bool add) {
  const auto m = r.message.Header<ndmsg>();
  if (r.message.payload.size() < sizeof(m)) return Err(EINVAL);
  const Family family = ToFamily(m.ndm_family);
  if (family == Family::kNone) return Err(EOPNOTSUPP);
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(m)));
  const netstack::Address address = TRY(AddressOf(attributes, NDA_DST, family));
  if (address.empty()) return r.Refuse(EINVAL, "no address is given");
  RefPtr<Interface> i = stack_.FindInterface(static_cast<uint32_t>(std::max(0, m.ndm_ifindex)));
  if (!i) return Err(ENODEV);
  netstack::NeighbourTable& table = i->neighbours(family);
  if (!add) return table.Remove(address);
  if ((m.ndm_state & NUD_PERMANENT) == 0) return r.Refuse(EOPNOTSUPP, "only permanent neighbours can be made");
  const auto link = TRY(attributes.ValueOr(NDA_LLADDR, netstack::LinkAddress{}));
  if (!attributes.Has(NDA_LLADDR)) return r.Refuse(EINVAL, "no link address is given");
  const bool there = table.Find(address).has_value();
  if (there && r.message.Has(NLM_F_EXCL)) return Err(EEXIST);
  if (!there && !r.message.Has(NLM_F_CREATE)) return Err(ENOENT);
  return table.AddPermanent(address, link);
}

}  // namespace redoubt::netlink
