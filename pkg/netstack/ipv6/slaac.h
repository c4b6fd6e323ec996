// Router discovery (RFC 4861 section 6.3) and stateless address autoconfiguration (RFC 4862) of all interfaces.
#ifndef REDOUBT_PKG_NETSTACK_IPV6_SLAAC_H_
#define REDOUBT_PKG_NETSTACK_IPV6_SLAAC_H_

#include <functional>
#include <map>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/timer.h"
#include "pkg/netstack/header/ndp.h"
#include "pkg/netstack/stack/stack.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Thread-safe. Addresses come from the modified EUI-64; there are no temporary ones (RFC 8981).
class Slaac final : public RefCounted {
 public:
  static constexpr int kMaxSolicitations = 3;  // RFC 4861 section 10
  static constexpr Time kSolicitationInterval = 4 * kSecond;
  static constexpr size_t kMaxRouters = 16;          // default routers of all interfaces
  static constexpr size_t kMaxPrefixes = 64;         // on-link prefixes and addresses made, of all interfaces
  static constexpr Time kTwoHours = 7200 * kSecond;  // RFC 4862 section 5.5.3 (e)
  static constexpr uint32_t kRouteMetric = 1024;     // as Linux's routes of router advertisements

  // `solicit` sends a router solicitation; called with no lock held.
  Slaac(Stack& stack, std::function<void(Interface&)> solicit);

  // Makes the link-local address and asks for routers.
  void Start(Interface& interface) EXCLUDES(mu_);
  void Stop(Interface& interface) EXCLUDES(mu_);
  // A checked advertisement (hop limit 255, from a link-local address).
  void HandleAdvertisement(Interface& interface, const Address& router, const header::NdpRouterAdvertisement& message)
      EXCLUDES(mu_);
  void Close() EXCLUDES(mu_);

 private:
  // What has a life span: a default route through a router (prefix of length 0) or an on-link prefix.
  struct Key {
    uint32_t interface_index;
    Prefix prefix;
    Address gateway;
    friend bool operator<(const Key& a, const Key& b) {
      return std::tie(a.interface_index, a.prefix.address, a.prefix.length, a.gateway) <
             std::tie(b.interface_index, b.prefix.address, b.prefix.length, b.gateway);
    }
  };
  struct Solicitation {
    int left = 0;
    Time next = kNever;
  };
  void SetRoute(const Key& key, uint32_t lifetime_seconds) EXCLUDES(mu_);
  void HandlePrefix(Interface& interface, const header::NdpPrefix& prefix);
  void OnTimer(Time now) EXCLUDES(mu_);
  void ArmLocked(Time deadline) REQUIRES(mu_);

  Stack& stack_;
  const std::function<void(Interface&)> solicit_;
  sync::Mutex mu_;
  std::map<Key, Time> routes_ GUARDED_BY(mu_);  // until when
  std::map<uint32_t, Solicitation> solicitations_ GUARDED_BY(mu_);
  Timer timer_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_IPV6_SLAAC_H_
