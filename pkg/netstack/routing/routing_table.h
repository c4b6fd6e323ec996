// The routing table: which interface and gateway lead to a destination. Linux's main table (man 8 ip-route).
#ifndef REDOUBT_PKG_NETSTACK_ROUTING_ROUTING_TABLE_H_
#define REDOUBT_PKG_NETSTACK_ROUTING_ROUTING_TABLE_H_

#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/netstack/address/address.h"
#include "pkg/sync/mutex.h"

namespace redoubt::netstack {

// RTN_* of linux/rtnetlink.h, those that a table of ours may have.
enum class RouteType : uint8_t { kUnicast = 1, kBlackhole = 6, kUnreachable = 7, kProhibit = 8 };

struct RouteEntry {
  Prefix destination;            // of length 0: the default route
  Address gateway;               // none: on-link
  uint32_t interface_index = 0;  // 0 only for types other than unicast
  uint32_t metric = 0;           // lower is better among equal prefixes
  Address source;                // preferred source (RTA_PREFSRC); none: choose
  uint32_t mtu = 0;              // 0: the interface's
  RouteType type = RouteType::kUnicast;
  uint8_t protocol = 3;  // RTPROT_*: 2 kernel, 3 boot, 4 static, 9 ra

  friend bool operator==(const RouteEntry&, const RouteEntry&) = default;
};

// Thread-safe. Ordered by prefix length and metric, so the first match is the best one; look-ups are linear, which is
// quick for the tens of routes a sandbox has and bounded by kMaxRoutes.
class RoutingTable final {
 public:
  static constexpr size_t kMaxRoutes = 4096;

  RoutingTable() : mu_(sync::Rank::kNetRoutes) {}

  // EEXIST if there is one with the same destination, metric, interface and gateway; EINVAL; ENOSPC.
  Result<> Add(RouteEntry entry) EXCLUDES(mu_);
  // Removes the first that matches in destination and in each of gateway, interface and metric that is set in `like`.
  // ESRCH.
  Result<> Remove(const RouteEntry& like) EXCLUDES(mu_);
  // Puts `entry` in the place of the first with its destination and metric; at its place if there is none. Errors as
  // Add's.
  Result<> Replace(RouteEntry entry) EXCLUDES(mu_);
  // All of one interface, or those through `gateway` if it is not none.
  void RemoveInterface(uint32_t interface_index, const Address& gateway = {}) EXCLUDES(mu_);
  // The best route for which `usable` is true (an interface that is up; the one asked for). It is called with the
  // table's lock held.
  template <typename Usable>
  std::optional<RouteEntry> Find(const Address& destination, Usable usable) const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    for (const RouteEntry& e : entries_) {
      if (e.destination.Contains(destination) && usable(e)) return e;
    }
    return std::nullopt;
  }
  std::vector<RouteEntry> Entries() const EXCLUDES(mu_);
  // Changes with every change of the table.
  uint32_t generation() const { return generation_.load(std::memory_order_acquire); }

  // Called after each change, with no lock held (RTNLGRP_IPV4_ROUTE). Set before the table is shared.
  enum class Change : uint8_t { kAdded, kReplaced, kRemoved };
  void SetChangeHook(std::function<void(Change, const RouteEntry&)> hook) { hook_ = std::move(hook); }

 private:
  static Result<> Check(const RouteEntry& entry);
  Result<> InsertLocked(const RouteEntry& entry) REQUIRES(mu_);

  mutable sync::Mutex mu_;
  std::vector<RouteEntry> entries_ GUARDED_BY(mu_);
  std::atomic<uint32_t> generation_{0};
  std::function<void(Change, const RouteEntry&)> hook_;
};

}  // namespace redoubt::netstack

#endif  // REDOUBT_PKG_NETSTACK_ROUTING_ROUTING_TABLE_H_
