#include "pkg/netstack/ipv6/slaac.h"

#include <algorithm>

#include "pkg/netstack/header/ipv6.h"

namespace redoubt::netstack {

namespace {
constexpr uint32_t kInfinite = 0xffffffff;
Time Until(Time now, uint32_t seconds) { return seconds == kInfinite ? kNever : now + seconds * kSecond; }
}  // namespace

Slaac::Slaac(Stack& stack, std::function<void(Interface&)> solicit)
    : stack_(stack),
      solicit_(std::move(solicit)),
      mu_(sync::Rank::kNetGroups),
      timer_(stack.timers(), *this, [](void* self, Time now) { static_cast<Slaac*>(self)->OnTimer(now); }, this) {}

void Slaac::Start(Interface& interface) {
  if (!interface.autoconfigure() || interface.is_loopback() || interface.link_address().IsUnspecified() ||
      interface.mtu() < header::Ipv6::kMinMtu) {
    return;
  }
  Address link_local = Eui64Address(*Address::Parse("fe80::"), interface.link_address());
  (void)interface.AddAddress({.prefix = {link_local, 64}, .origin = AddressOrigin::kLinkLocal});
  // RFC 4861 section 6.3.7: after a random delay of up to a second; routers do not solicit.
  if (stack_.forwarding(Family::kIpv6)) return;
  Time at = stack_.Now() + static_cast<Time>(stack_.random().Below(1000)) * kMillisecond;
  sync::MutexLock lock(mu_);
  solicitations_[interface.index()] = {kMaxSolicitations, at};
  ArmLocked(at);
}

void Slaac::Stop(Interface& interface) {
  std::vector<Key> gone;
  {
    sync::MutexLock lock(mu_);
    solicitations_.erase(interface.index());
    for (auto it = routes_.begin(); it != routes_.end();) {
      if (it->first.interface_index == interface.index()) {
        gone.push_back(it->first);
        it = routes_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (const Key& k : gone) {
    (void)stack_.routes().Remove({.destination = k.prefix, .gateway = k.gateway, .interface_index = k.interface_index});
  }
}

void Slaac::HandleAdvertisement(Interface& interface, const Address& router,
                                const header::NdpRouterAdvertisement& message) {
  if (!interface.autoconfigure() || stack_.forwarding(Family::kIpv6)) return;
  {
    sync::MutexLock lock(mu_);
    solicitations_.erase(interface.index());
  }
  NeighbourTable& neighbours = interface.neighbours(Family::kIpv6);
  if (message.options.source_link) neighbours.HandleSolicitation(router, *message.options.source_link, true);
  // Section 6.3.4: unreasonable times are ignored (an hour is the most a router may say).
  neighbours.SetTimes(message.reachable_time <= 3'600'000 ? message.reachable_time * kMillisecond : 0,
                      message.retransmit_timer <= 3'600'000 ? message.retransmit_timer * kMillisecond : 0);
  SetRoute({interface.index(), {Address::Any(Family::kIpv6), 0}, router}, message.lifetime);
  if (message.options.mtu >= header::Ipv6::kMinMtu && message.options.mtu < interface.mtu()) {
    (void)interface.SetMtu(message.options.mtu);
  }
  for (size_t i = 0; i < message.options.prefix_count; i++) HandlePrefix(interface, message.options.prefixes[i]);
}

void Slaac::SetRoute(const Key& key, uint32_t lifetime_seconds) {
  Time now = stack_.Now();
  RouteEntry entry{.destination = key.prefix,
                   .gateway = key.gateway,
                   .interface_index = key.interface_index,
                   .metric = kRouteMetric,
                   .protocol = 9};
  if (lifetime_seconds == 0) {
    bool known;
    {
      sync::MutexLock lock(mu_);
      known = routes_.erase(key) != 0;
    }
    if (known) (void)stack_.routes().Remove(entry);
    return;
  }
  bool added = false;
  {
    sync::MutexLock lock(mu_);
    auto it = routes_.find(key);
    if (it == routes_.end()) {
      size_t same_kind = static_cast<size_t>(std::ranges::count_if(
          routes_, [&](const auto& r) { return r.first.gateway.empty() == key.gateway.empty(); }));
      if (same_kind >= (key.gateway.empty() ? kMaxPrefixes : kMaxRouters)) return;
      it = routes_.emplace(key, 0).first;
      added = true;
    }
    it->second = Until(now, lifetime_seconds);
    if (it->second != kNever) ArmLocked(it->second);
  }
  if (added) (void)stack_.routes().Add(entry);
}

void Slaac::HandlePrefix(Interface& interface, const header::NdpPrefix& p) {
  Prefix network{p.prefix.Network(), p.prefix.length};
  if (network.address.IsLinkLocal() || network.address.IsMulticast() || p.prefix.length == 0) return;
  if (p.on_link) SetRoute({interface.index(), network, {}}, p.valid_lifetime);
  // RFC 4862 section 5.5.3; our identifiers have 64 bits.
  if (!p.autonomous || p.preferred_lifetime > p.valid_lifetime || p.prefix.length != 64) return;
  Time now = stack_.Now();
  Time preferred = Until(now, p.preferred_lifetime);
  Time valid = Until(now, p.valid_lifetime);
  Address address = Eui64Address(network.address, interface.link_address());
  std::optional<InterfaceAddress> known = interface.FindAddress(address);
  if (!known) {
    if (p.valid_lifetime == 0) return;
    size_t made = static_cast<size_t>(std::ranges::count_if(
        interface.Addresses(), [](const InterfaceAddress& a) { return a.origin == AddressOrigin::kSlaac; }));
    if (made >= kMaxPrefixes) return;
    (void)interface.AddAddress(
        {.prefix = {address, 64}, .origin = AddressOrigin::kSlaac, .preferred_until = preferred, .valid_until = valid});
    return;
  }
  if (known->origin != AddressOrigin::kSlaac) return;
  // (e): nobody on the link may cut a life to less than two hours.
  Time remaining = known->valid_until == kNever ? kNever : known->valid_until - now;
  Time offered = valid == kNever ? kNever : valid - now;
  if (offered <= kTwoHours && offered <= remaining)
    valid = remaining <= kTwoHours ? known->valid_until : now + kTwoHours;
  (void)interface.SetLifetimes(address, preferred, valid);
}

void Slaac::OnTimer(Time now) {
  std::vector<Key> expired;
  std::vector<uint32_t> solicit;
  {
    sync::MutexLock lock(mu_);
    Time next = kNever;
    for (auto it = routes_.begin(); it != routes_.end();) {
      if (it->second <= now) {
        expired.push_back(it->first);
        it = routes_.erase(it);
        continue;
      }
      next = std::min(next, it->second);
      ++it;
    }
    for (auto& [index, s] : solicitations_) {
      if (s.left > 0 && s.next <= now) {
        s.left--;
        s.next = s.left > 0 ? now + kSolicitationInterval : kNever;
        solicit.push_back(index);
      }
      next = std::min(next, s.next);
    }
    if (next != kNever) ArmLocked(next);
  }
  for (const Key& k : expired) {
    (void)stack_.routes().Remove(
        {.destination = k.prefix, .gateway = k.gateway, .interface_index = k.interface_index, .metric = kRouteMetric});
  }
  for (uint32_t index : solicit) {
    if (RefPtr<Interface> interface = stack_.FindInterface(index)) solicit_(*interface);
  }
}

void Slaac::ArmLocked(Time deadline) {
  if (deadline < timer_.deadline()) timer_.Schedule(deadline);
}

void Slaac::Close() {
  {
    sync::MutexLock lock(mu_);
    routes_.clear();
    solicitations_.clear();
  }
  timer_.Cancel();
}

}  // namespace redoubt::netstack
