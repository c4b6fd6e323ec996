#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "pkg/sentry/socket/netlink/route.h"

namespace redoubt::netlink {

using netstack::Address;
using netstack::Family;
using netstack::Interface;
using netstack::InterfaceAddress;
using netstack::RouteEntry;

namespace {

// What of a dump's request chooses among routes.
struct Filter {
  Family family = Family::kNone;
  uint32_t table = 0, oif = 0;
  uint8_t protocol = 0, type = 0;
};

}  // namespace

void WriteLocalRoute(Writer& w, const Heading& heading, const Interface& interface, const Address& a) {
  rtmsg m{};
  m.rtm_family = FromFamily(a.family());
  m.rtm_dst_len = static_cast<uint8_t>(8 * a.size());
  m.rtm_table = RT_TABLE_LOCAL;
  m.rtm_protocol = RTPROT_KERNEL;
  m.rtm_scope = a.is_ipv4() ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
  m.rtm_type = RTN_LOCAL;
  w.Begin(heading.type, heading.flags, heading.sequence, heading.port, m);
  w.Attribute(RTA_TABLE, uint32_t{RT_TABLE_LOCAL});
  w.Attribute(RTA_DST, a.bytes());
  if (a.is_ipv4()) w.Attribute(RTA_PREFSRC, a.bytes());
  w.Attribute(RTA_OIF, interface.index());
}

void WriteRoute(Writer& w, const Heading& heading, const RouteEntry& e) {
  const bool v4 = e.destination.address.is_ipv4();
  rtmsg m{};
  m.rtm_family = FromFamily(e.destination.address.family());
  m.rtm_dst_len = e.destination.length;
  m.rtm_table = RT_TABLE_MAIN;
  m.rtm_protocol = e.protocol;
  m.rtm_scope = v4 && e.gateway.empty() && e.type == netstack::RouteType::kUnicast ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  m.rtm_type = static_cast<uint8_t>(e.type);
  w.Begin(heading.type, heading.flags, heading.sequence, heading.port, m);
  w.Attribute(RTA_TABLE, uint32_t{RT_TABLE_MAIN});
  if (e.destination.length > 0) w.Attribute(RTA_DST, e.destination.Network().bytes());
  if (e.metric != 0) w.Attribute(RTA_PRIORITY, e.metric);
  if (!e.source.empty()) w.Attribute(RTA_PREFSRC, e.source.bytes());
  if (!e.gateway.empty()) w.Attribute(RTA_GATEWAY, e.gateway.bytes());
  if (e.interface_index != 0) w.Attribute(RTA_OIF, e.interface_index);
  if (e.mtu != 0) {
    const size_t nest = w.BeginNest(RTA_METRICS);
    w.Attribute(RTAX_MTU, e.mtu);
    w.EndNest(nest);
  }
  if (!v4) w.Attribute(RTA_PREF, uint8_t{0});  // medium (RFC 4191)
}

Result<> RouteProtocol::GetRoute(Request& r) {
  if (!r.is_dump()) return LookUp(r);
  const auto m = r.message.Header<rtmsg>();
  Filter f{.family = ToFamily(m.rtm_family)};
  if (m.rtm_family != AF_UNSPEC && f.family == Family::kNone) return {};  // of that family there are none
  if (r.strict) {
    const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(m)));
    f.table = TRY(attributes.ValueOr<uint32_t>(RTA_TABLE, m.rtm_table));
    f.oif = TRY(attributes.ValueOr<uint32_t>(RTA_OIF, 0));
    f.protocol = m.rtm_protocol;
    f.type = m.rtm_type;
    if (f.table != 0 && f.table != RT_TABLE_MAIN && f.table != RT_TABLE_LOCAL) {
      return r.Refuse(ENOENT, "there is no such table");
    }
  }
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    if (f.family != Family::kNone && f.family != family) continue;
    if (f.table != RT_TABLE_LOCAL) {
      std::vector<RouteEntry> entries = stack_.routes().Entries();
      // As Linux lists them, the default route first; scripts take the first line.
      if (family == Family::kIpv4) {
        std::stable_sort(entries.begin(), entries.end(), [](const RouteEntry& a, const RouteEntry& b) {
          return std::pair(a.destination.address, a.destination.length) <
                 std::pair(b.destination.address, b.destination.length);
        });
      }
      for (const RouteEntry& e : entries) {
        if (e.destination.address.family() != family || (f.oif != 0 && f.oif != e.interface_index) ||
            (f.protocol != 0 && f.protocol != e.protocol) || (f.type != 0 && f.type != static_cast<uint8_t>(e.type))) {
          continue;
        }
        WriteRoute(r.reply, HeadingOf(r, RTM_NEWROUTE), e);
      }
    }
    if (f.table == RT_TABLE_MAIN || (f.protocol != 0 && f.protocol != RTPROT_KERNEL) ||
        (f.type != 0 && f.type != RTN_LOCAL)) {
      continue;
    }
    for (const RefPtr<Interface>& i : stack_.Interfaces()) {
      if (f.oif != 0 && f.oif != i->index()) continue;
      for (const InterfaceAddress& a : i->Addresses()) {
        if (a.prefix.address.family() != family) continue;
        WriteLocalRoute(r.reply, HeadingOf(r, RTM_NEWROUTE), *i, a.prefix.address);
      }
    }
  }
  return {};
}

// What `ip route get` asks: where would a packet go?
Result<> RouteProtocol::LookUp(Request& r) {
  const auto m = r.message.Header<rtmsg>();
  if (r.message.payload.size() < sizeof(m)) return Err(EINVAL);
  const Family family = ToFamily(m.rtm_family);
  if (family == Family::kNone) return Err(EOPNOTSUPP);
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(m)));
  netstack::RouteRequest question{.broadcast_allowed = true};
  question.remote = TRY(AddressOf(attributes, RTA_DST, family));
  question.local = TRY(AddressOf(attributes, RTA_SRC, family));
  question.interface_index = TRY(attributes.ValueOr<uint32_t>(RTA_OIF, 0));
  if (question.remote.empty()) question.remote = Address::Loopback(family);
  const netstack::Route route = TRY(stack_.FindRoute(question));
  const bool local = stack_.IsLocal(question.remote) || question.remote.IsLoopback();
  rtmsg answer{};
  answer.rtm_family = m.rtm_family;
  answer.rtm_dst_len = static_cast<uint8_t>(8 * question.remote.size());
  answer.rtm_table = local ? RT_TABLE_LOCAL : RT_TABLE_MAIN;
  answer.rtm_protocol = RTPROT_UNSPEC;
  answer.rtm_scope = RT_SCOPE_UNIVERSE;
  answer.rtm_type = local                  ? RTN_LOCAL
                    : route.is_broadcast() ? RTN_BROADCAST
                    : route.is_multicast() ? RTN_MULTICAST
                                           : RTN_UNICAST;
  answer.rtm_flags = RTM_F_CLONED;
  r.Answer(RTM_NEWROUTE, answer);
  Writer& w = r.reply;
  w.Attribute(RTA_TABLE, uint32_t{answer.rtm_table});
  w.Attribute(RTA_DST, question.remote.bytes());
  w.Attribute(RTA_OIF, route.interface().index());
  if (!route.local().empty()) w.Attribute(RTA_PREFSRC, route.local().bytes());
  if (!local && route.next_hop() != question.remote && !route.next_hop().empty()) {
    w.Attribute(RTA_GATEWAY, route.next_hop().bytes());
  }
  if (family == Family::kIpv6) w.Attribute(RTA_PREF, uint8_t{0});
  return {};
}

Result<RouteEntry> RouteProtocol::ParseRoute(Request& r) {
  const auto m = r.message.Header<rtmsg>();
  if (r.message.payload.size() < sizeof(m)) return Err(EINVAL);
  const Family family = ToFamily(m.rtm_family);
  if (family == Family::kNone) return Err(EOPNOTSUPP);
  const Attributes attributes = TRY(Attributes::Parse(r.message, sizeof(m)));
  const uint32_t table = TRY(attributes.ValueOr<uint32_t>(RTA_TABLE, m.rtm_table));
  if (table != RT_TABLE_MAIN && table != RT_TABLE_UNSPEC) {
    return r.Refuse(EOPNOTSUPP, "there is no routing table but main");
  }
  if (attributes.Has(RTA_MULTIPATH) || attributes.Has(RTA_VIA) || attributes.Has(RTA_NH_ID)) {
    return r.Refuse(EOPNOTSUPP, "a route has one next hop, of its own IP version");
  }
  if (m.rtm_tos != 0 || m.rtm_src_len != 0) {
    return r.Refuse(EOPNOTSUPP, "routes by type of service or by source are not implemented");
  }
  RouteEntry e;
  e.destination.address = TRY(AddressOf(attributes, RTA_DST, family));
  if (e.destination.address.empty()) e.destination.address = Address::Any(family);
  e.destination.length = m.rtm_dst_len;
  if (e.destination.length > 8 * e.destination.address.size()) return r.Refuse(EINVAL, "invalid prefix length");
  e.gateway = TRY(AddressOf(attributes, RTA_GATEWAY, family));
  e.source = TRY(AddressOf(attributes, RTA_PREFSRC, family));
  e.interface_index = TRY(attributes.ValueOr<uint32_t>(RTA_OIF, 0));
  e.metric = TRY(attributes.ValueOr<uint32_t>(RTA_PRIORITY, 0));
  e.protocol = m.rtm_protocol != 0 ? m.rtm_protocol : uint8_t{RTPROT_BOOT};
  e.type = static_cast<netstack::RouteType>(m.rtm_type != 0 ? m.rtm_type : uint8_t{RTN_UNICAST});
  if (attributes.Has(RTA_METRICS)) {
    const Attributes metrics = TRY(Attributes::Parse(attributes.Get(RTA_METRICS)));
    e.mtu = TRY(metrics.ValueOr<uint32_t>(RTAX_MTU, 0));
  }
  return e;
}

Result<> RouteProtocol::NewRoute(Request& r) {
  RouteEntry e = TRY(ParseRoute(r));
  using netstack::RouteType;
  if (e.type != RouteType::kUnicast && e.type != RouteType::kBlackhole && e.type != RouteType::kUnreachable &&
      e.type != RouteType::kProhibit) {
    return r.Refuse(EINVAL, "routes of this type are the kernel's own");
  }
  if (e.destination.address.is_ipv6() && e.metric == 0) e.metric = 1024;  // IP6_RT_PRIO_USER
  if (e.destination.Network() != e.destination.address)
    return r.Refuse(EINVAL, "invalid prefix for given prefix length");
  if (!e.source.empty() && !stack_.IsLocal(e.source)) return r.Refuse(EINVAL, "invalid prefsrc address");
  if (e.type == RouteType::kUnicast) {
    if (!e.gateway.empty()) {
      Result<netstack::Route> way =
          stack_.FindRoute({.remote = e.gateway, .interface_index = e.interface_index, .forwarding = true});
      if (!way || way->next_hop() != e.gateway) return r.Refuse(ENETUNREACH, "nexthop has invalid gateway");
      e.interface_index = way->interface().index();
    }
    if (e.interface_index == 0) return r.Refuse(ENODEV, "no device is given");
    RefPtr<Interface> i = stack_.FindInterface(e.interface_index);
    if (!i) return Err(ENODEV);
    if (!i->up()) return r.Refuse(ENETDOWN, "nexthop device is not up");
  } else {
    e.interface_index = 0;
    e.gateway = {};
  }
  // Linux keeps a route apart from another by destination and metric.
  auto same = [&](const RouteEntry& o) { return o.destination == e.destination && o.metric == e.metric; };
  bool there = false;
  for (const RouteEntry& o : stack_.routes().Entries()) there |= same(o);
  if (there && r.message.Has(NLM_F_REPLACE)) return stack_.routes().Replace(e);
  if (there && r.message.Has(NLM_F_EXCL)) {
    return Err(EEXIST);
  } else if (!there && !r.message.Has(NLM_F_CREATE)) {
    return Err(ENOENT);
  }
  return stack_.routes().Add(e);
}

Result<> RouteProtocol::DeleteRoute(Request& r) { return stack_.routes().Remove(TRY(ParseRoute(r))); }

// The rules that Linux has when nobody has made any.
Result<> RouteProtocol::GetRule(Request& r) {
  if (!r.is_dump()) return Err(EOPNOTSUPP);
  const auto header = r.message.Header<fib_rule_hdr>();
  struct Rule {
    uint32_t priority;
    uint8_t table;
  };
  constexpr Rule kRules[] = {{0, RT_TABLE_LOCAL}, {32766, RT_TABLE_MAIN}, {32767, RT_TABLE_DEFAULT}};
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    if (header.family != AF_UNSPEC && header.family != FromFamily(family)) continue;
    for (const Rule& rule : kRules) {
      if (family == Family::kIpv6 && rule.table == RT_TABLE_DEFAULT) continue;
      fib_rule_hdr m{};
      m.family = FromFamily(family);
      m.table = rule.table;
      m.action = FR_ACT_TO_TBL;
      r.Answer(RTM_NEWRULE, m);
      r.reply.Attribute(FRA_TABLE, uint32_t{rule.table});
      r.reply.Attribute(FRA_SUPPRESS_PREFIXLEN, ~uint32_t{0});
      r.reply.Attribute(FRA_PROTOCOL, uint8_t{RTPROT_KERNEL});
      if (rule.priority != 0) r.reply.Attribute(FRA_PRIORITY, rule.priority);
    }
  }
  return {};
}

}  // namespace redoubt::netlink
