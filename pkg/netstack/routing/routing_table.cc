#include "pkg/netstack/routing/routing_table.h"

#include <algorithm>

namespace redoubt::netstack {

Result<> RoutingTable::Check(const RouteEntry& entry) {
  size_t bits = 8 * entry.destination.address.size();
  if (bits == 0 || entry.destination.length > bits) return Err(EINVAL);
  if (!entry.gateway.empty() && (entry.gateway.family() != entry.destination.address.family() ||
                                 entry.gateway.IsMulticast() || entry.gateway.IsUnspecified())) {
    return Err(EINVAL);
  }
  if (entry.type == RouteType::kUnicast && entry.interface_index == 0) return Err(EINVAL);
  if (entry.destination.address != entry.destination.Network()) return Err(EINVAL);
  return {};
}

Result<> RoutingTable::InsertLocked(const RouteEntry& entry) {
  if (entries_.size() >= kMaxRoutes) return Err(ENOSPC);
  for (const RouteEntry& e : entries_) {
    if (e.destination == entry.destination && e.metric == entry.metric && e.interface_index == entry.interface_index &&
        e.gateway == entry.gateway) {
      return Err(EEXIST);
    }
  }
  auto at = std::ranges::find_if(entries_, [&](const RouteEntry& e) {
    return e.destination.length != entry.destination.length ? e.destination.length < entry.destination.length
                                                            : e.metric > entry.metric;
  });
  entries_.insert(at, entry);
  generation_.fetch_add(1, std::memory_order_acq_rel);
  return {};
}

Result<> RoutingTable::Add(RouteEntry entry) {
  TRY(Check(entry));
  {
    sync::MutexLock lock(mu_);
    TRY(InsertLocked(entry));
  }
  if (hook_) hook_(Change::kAdded, entry);
  return {};
}

Result<> RoutingTable::Replace(RouteEntry entry) {
  TRY(Check(entry));
  Change change = Change::kReplaced;
  {
    sync::MutexLock lock(mu_);
    auto it = std::ranges::find_if(
        entries_, [&](const RouteEntry& e) { return e.destination == entry.destination && e.metric == entry.metric; });
    if (it != entries_.end()) {
      *it = entry;
      generation_.fetch_add(1, std::memory_order_acq_rel);
    } else {
      TRY(InsertLocked(entry));
      change = Change::kAdded;
    }
  }
  if (hook_) hook_(change, entry);
  return {};
}

Result<> RoutingTable::Remove(const RouteEntry& like) {
  RouteEntry removed;
  {
    sync::MutexLock lock(mu_);
    auto it = std::ranges::find_if(entries_, [&](const RouteEntry& e) {
      return e.destination == like.destination && (like.gateway.empty() || e.gateway == like.gateway) &&
             (like.interface_index == 0 || e.interface_index == like.interface_index) &&
             (like.metric == 0 || e.metric == like.metric);
    });
    if (it == entries_.end()) return Err(ESRCH);
    removed = *it;
    entries_.erase(it);
    generation_.fetch_add(1, std::memory_order_acq_rel);
  }
  if (hook_) hook_(Change::kRemoved, removed);
  return {};
}

void RoutingTable::RemoveInterface(uint32_t interface_index, const Address& gateway) {
  std::vector<RouteEntry> removed;
  {
    sync::MutexLock lock(mu_);
    std::erase_if(entries_, [&](const RouteEntry& e) {
      if (e.interface_index != interface_index || (!gateway.empty() && e.gateway != gateway)) return false;
      removed.push_back(e);
      return true;
    });
    if (!removed.empty()) generation_.fetch_add(1, std::memory_order_acq_rel);
  }
  if (hook_) {
    for (const RouteEntry& e : removed) hook_(Change::kRemoved, e);
  }
}

std::vector<RouteEntry> RoutingTable::Entries() const {
  sync::MutexLock lock(mu_);
  return entries_;
}

}  // namespace redoubt::netstack
