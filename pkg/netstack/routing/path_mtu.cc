#include "pkg/netstack/routing/path_mtu.h"

#include <algorithm>

namespace redoubt::netstack {

std::optional<PathMtuCache::Entry> PathMtuCache::Find(const Address& remote, Time now) const {
  sync::MutexLock lock(mu_);
  auto it = entries_.find(remote);
  if (it == entries_.end() || it->second.expires <= now) return std::nullopt;
  return it->second;
}

uint32_t PathMtuCache::Lower(const Address& remote, uint32_t mtu, uint32_t interface_mtu, Time now) {
  mtu = std::max(mtu, remote.is_ipv4() ? std::min(kMinIpv4, interface_mtu) : kMinIpv6);
  sync::MutexLock lock(mu_);
  auto it = entries_.find(remote);
  uint32_t known = it != entries_.end() && it->second.expires > now ? it->second.mtu : interface_mtu;
  if (mtu >= known) return known;
  if (it == entries_.end() && entries_.size() >= kMaxEntries) {
    std::erase_if(entries_, [now](const auto& e) { return e.second.expires <= now; });
    if (entries_.size() >= kMaxEntries) {
      entries_.erase(std::ranges::min_element(entries_, {}, [](const auto& e) { return e.second.expires; }));
    }
  }
  entries_[remote] = {.mtu = mtu, .expires = now + kLifetime};
  generation_.fetch_add(1, std::memory_order_acq_rel);
  return mtu;
}

uint8_t PolicyLabel(const Address& address) {
  struct Policy {
    Prefix prefix;
    uint8_t label;
  };
  // RFC 6724 section 2.1, longest prefixes first.
  static constexpr Policy kPolicies[] = {
      {{Address::Ipv6({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}), 128}, 0},
      {{Address::Ipv6({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}), 96}, 4},
      {{Address::Ipv6({}), 96}, 3},
      {{Address::Ipv6({0x20, 0x01}), 32}, 5},
      {{Address::Ipv6({0x20, 0x02}), 16}, 2},
      {{Address::Ipv6({0x3f, 0xfe}), 16}, 12},
      {{Address::Ipv6({0xfe, 0xc0}), 10}, 11},
      {{Address::Ipv6({0xfc}), 7}, 13},
  };
  Address a = address.ToV4Mapped();
  for (const Policy& p : kPolicies) {
    if (p.prefix.Contains(a)) return p.label;
  }
  return 1;
}

namespace {

// True if `a` is better than `b` by the first rule that tells them apart. Rules 4, 5.5, 6a and 7 (home addresses,
// advertising routers, temporary addresses) have nothing to compare here.
bool Better(const Address& remote, const SourceCandidate& a, const SourceCandidate& b) {
  // Rule 1: the same address.
  if ((a.prefix.address == remote) != (b.prefix.address == remote)) return a.prefix.address == remote;
  // Rule 2: appropriate scope.
  Scope sa = a.prefix.address.scope();
  Scope sb = b.prefix.address.scope();
  if (sa != sb) return sa < sb ? sa >= remote.scope() : sb < remote.scope();
  // Rule 3: not deprecated.
  if (a.deprecated != b.deprecated) return b.deprecated;
  // Rule 5: of the outgoing interface.
  if (a.on_outgoing_interface != b.on_outgoing_interface) return a.on_outgoing_interface;
  // Rule 6: matching label.
  uint8_t label = PolicyLabel(remote);
  bool la = PolicyLabel(a.prefix.address) == label;
  bool lb = PolicyLabel(b.prefix.address) == label;
  if (la != lb) return la;
  // Rule 8: longest matching prefix, of the part that names the network.
  return std::min(CommonPrefixLength(a.prefix.address, remote), a.prefix.length) >
         std::min(CommonPrefixLength(b.prefix.address, remote), b.prefix.length);
}

}  // namespace

int SelectSource(const Address& remote, std::span<const SourceCandidate> candidates) {
  int best = -1;
  for (size_t i = 0; i < candidates.size(); i++) {
    if (candidates[i].prefix.address.family() != remote.family()) continue;
    if (best < 0 || Better(remote, candidates[i], candidates[static_cast<size_t>(best)])) best = static_cast<int>(i);
  }
  return best;
}

}  // namespace redoubt::netstack
