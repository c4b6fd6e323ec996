#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "pkg/sentry/socket/netlink/route.h"

namespace redoubt::netlink {

using netstack::Address;
using netstack::AddressState;
using netstack::Family;
using netstack::Interface;
using netstack::InterfaceAddress;

namespace {

constexpr uint32_t kForEver = 0xffffffff;

uint8_t ScopeOf(const Address& a) {
  if (a.IsLoopback()) return RT_SCOPE_HOST;
  return a.IsLinkLocal() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
}

uint32_t FlagsOf(const InterfaceAddress& a) {
  uint32_t flags = a.valid_until == netstack::kNever ? IFA_F_PERMANENT : 0;
  if (a.state == AddressState::kTentative) flags |= IFA_F_TENTATIVE;
  if (a.state == AddressState::kDeprecated) flags |= IFA_F_DEPRECATED;
  if (a.state == AddressState::kDuplicate) flags |= IFA_F_DADFAILED;
  return flags;
}

uint32_t SecondsUntil(netstack::Time then, netstack::Time now) {
  if (then == netstack::kNever) return kForEver;
  return then <= now ? 0 : static_cast<uint32_t>((then - now) / netstack::kSecond);
}

struct Change {
  ifaddrmsg info{};
  RefPtr<Interface> interface;
  Attributes attributes;
  Address address;
};

Result<Change> Parse(Request& r, netstack::Stack& stack) {
  Change c;
  c.info = r.message.Header<ifaddrmsg>();
  if (r.message.payload.size() < sizeof(c.info)) return Err(EINVAL);
  const Family family = ToFamily(c.info.ifa_family);
  if (family == Family::kNone) return Err(EOPNOTSUPP);
  c.attributes = TRY(Attributes::Parse(r.message, sizeof(c.info)));
  c.address = TRY(AddressOf(c.attributes, IFA_LOCAL, family));
  const Address prefix = TRY(AddressOf(c.attributes, IFA_ADDRESS, family));
  if (c.address.empty()) c.address = prefix;
  if (c.address.empty()) return r.Refuse(EINVAL, "no address is given");
  if (!prefix.empty() && prefix != c.address) return r.Refuse(EOPNOTSUPP, "addresses of a peer are not implemented");
  c.interface = stack.FindInterface(c.info.ifa_index);
  if (!c.interface) return Err(ENODEV);
  return c;
}

}  // namespace

void WriteAddress(Writer& w, const Heading& heading, Interface& interface, const InterfaceAddress& a) {
  const Address& address = a.prefix.address;
  const uint32_t flags = FlagsOf(a);
  ifaddrmsg info{};
  info.ifa_family = FromFamily(address.family());
  info.ifa_prefixlen = a.prefix.length;
  info.ifa_flags = static_cast<uint8_t>(flags);
  info.ifa_scope = ScopeOf(address);
  info.ifa_index = interface.index();
  w.Begin(heading.type, heading.flags, heading.sequence, heading.port, info);
  w.Attribute(IFA_ADDRESS, address.bytes());
  if (address.is_ipv4()) {
    w.Attribute(IFA_LOCAL, address.bytes());
    const Address broadcast = a.prefix.Broadcast();
    if (!interface.is_loopback() && !broadcast.empty()) w.Attribute(IFA_BROADCAST, broadcast.bytes());
    w.Text(IFA_LABEL, interface.name());
  }
  w.Attribute(IFA_FLAGS, flags);
  const netstack::Time now = interface.stack().Now();
  ifa_cacheinfo times{};
  times.ifa_prefered = SecondsUntil(a.preferred_until, now);
  times.ifa_valid = SecondsUntil(a.valid_until, now);
  w.Attribute(IFA_CACHEINFO, times);
}

Result<> RouteProtocol::GetAddress(Request& r) {
  const auto info = r.message.Header<ifaddrmsg>();
  if (!r.is_dump()) return Err(EOPNOTSUPP);
  const bool by_index = r.strict && info.ifa_index != 0;
  if (by_index && !stack_.FindInterface(info.ifa_index)) return Err(ENODEV);
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    if (info.ifa_family != AF_UNSPEC && info.ifa_family != FromFamily(family)) continue;
    for (const RefPtr<Interface>& i : stack_.Interfaces()) {
      if (by_index && i->index() != info.ifa_index) continue;
      for (const InterfaceAddress& a : i->Addresses()) {
        if (a.prefix.address.family() == family) WriteAddress(r.reply, HeadingOf(r, RTM_NEWADDR), *i, a);
      }
    }
  }
  return {};
}

Result<> RouteProtocol::NewAddress(Request& r) {
  Change c = TRY(Parse(r, stack_));
  InterfaceAddress a;
  a.prefix = {c.address, c.info.ifa_prefixlen};
  if (c.attributes.Has(IFA_CACHEINFO)) {
    const ifa_cacheinfo times = TRY(c.attributes.ValueOr(IFA_CACHEINFO, ifa_cacheinfo{}));
    if (times.ifa_valid == 0 || times.ifa_prefered > times.ifa_valid) return Err(EINVAL);
    const netstack::Time now = stack_.Now();
    auto until = [now](uint32_t s) { return s == kForEver ? netstack::kNever : now + s * netstack::kSecond; };
    a.preferred_until = until(times.ifa_prefered);
    a.valid_until = until(times.ifa_valid);
    if (times.ifa_prefered == 0) a.state = AddressState::kDeprecated;
  }
  const auto known = c.interface->FindAddress(c.address);
  if (known && r.message.Has(NLM_F_REPLACE) && !r.message.Has(NLM_F_EXCL)) {
    return c.interface->SetLifetimes(c.address, a.preferred_until, a.valid_until);
  }
  return c.interface->AddAddress(a);
}

Result<> RouteProtocol::DeleteAddress(Request& r) {
  Change c = TRY(Parse(r, stack_));
  const auto known = c.interface->FindAddress(c.address);
  if (!known || (c.info.ifa_prefixlen != 0 && known->prefix.length != c.info.ifa_prefixlen)) {
    return r.Refuse(EADDRNOTAVAIL, "address not found");
  }
  return c.interface->RemoveAddress(c.address);
}

}  // namespace redoubt::netlink
