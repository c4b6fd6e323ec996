// Path MTUs learned from "packet too big" (RFC 1191, RFC 8201), and the choice among addresses (RFC 6724).
#ifndef REDOUBT_PKG_NETSTACK_ROUTING_PATH_MTU_H_
#define REDOUBT_PKG_NETSTACK_ROUTING_PATH_MTU_H_

#include <atomic>
#include <optional>
#include <span>
#include <unordered_map>

#include "pkg/netstack/address/address.h"
#include "pkg/netstack/clock/clock.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// Thread-safe and bounded: when full, what expires first goes.
class PathMtuCache final {
 public:
  static constexpr size_t kMaxEntries = 4096;
  static constexpr Time kLifetime = 600 * kSecond;  // RFC 1191 section 6.3, net.ipv4.route.mtu_expires
  // Smaller values are raised to this: net.ipv4.route.min_pmtu; RFC 8201 section 4. Below it forged messages would only
  // cost.
  static constexpr uint32_t kMinIpv4 = 552;
  static constexpr uint32_t kMinIpv6 = 1280;

  PathMtuCache() : mu_(sync::Rank::kNetPathMtu) {}

  struct Entry {
    uint32_t mtu = 0;
    Time expires = 0;
  };
  // nullopt if nothing is known, or no longer.
  std::optional<Entry> Find(const Address& remote, Time now) const EXCLUDES(mu_);
  // Remembers `mtu` if it is less than what is known and than `interface_mtu`. Returns the MTU now in force.
  uint32_t Lower(const Address& remote, uint32_t mtu, uint32_t interface_mtu, Time now) EXCLUDES(mu_);
  // Changes with every change but expiry.
  uint32_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  mutable sync::Mutex mu_;
  std::unordered_map<Address, Entry, AddressHash> entries_ GUARDED_BY(mu_);
  std::atomic<uint32_t> generation_{0};
};

// RFC 6724 section 5: which of `candidates` is the best source for `remote`? The index, or -1 if there is none.
struct SourceCandidate {
  Prefix prefix;
  bool deprecated = false;
  bool on_outgoing_interface = false;
};
int SelectSource(const Address& remote, std::span<const SourceCandidate> candidates);
// The policy table's label (section 2.1) of an address.
uint8_t PolicyLabel(const Address& address);

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_ROUTING_PATH_MTU_H_
