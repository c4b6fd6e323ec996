#include "pkg/netstack/transport/memberships.h"

#include <algorithm>
#include <utility>

namespace redoubt::netstack {

bool SourceFilter::Allows(const Address& source) const {
  const bool listed = std::ranges::find(sources, source) != sources.end();
  return listed == (mode == SourceMode::kInclude);
}

const Memberships::Membership* Memberships::Find(const Address& group, uint32_t interface_index) const {
  auto it = std::ranges::find_if(
      all_, [&](const Membership& m) { return m.group == group && m.interface_index == interface_index; });
  return it != all_.end() ? &*it : nullptr;
}

Memberships::Membership* Memberships::FindMutable(const Address& group, uint32_t interface_index) {
  return const_cast<Membership*>(Find(group, interface_index));
}

Result<> Memberships::Add(const Address& group, uint32_t interface_index, SourceMode mode) {
  if (Find(group, interface_index) != nullptr) return Err(EADDRINUSE);
  if (all_.size() >= kMax) return Err(ENOBUFS);
  all_.push_back({.group = group, .interface_index = interface_index, .filter = {.mode = mode}});
  return {};
}

Result<uint32_t> Memberships::Remove(const Address& group, uint32_t interface_index) {
  auto it = std::ranges::find_if(all_, [&](const Membership& m) {
    return m.group == group && (interface_index == 0 || m.interface_index == interface_index);
  });
  if (it == all_.end()) return Err(EADDRNOTAVAIL);
  const uint32_t index = it->interface_index;
  all_.erase(it);
  return index;
}

Result<Memberships::Outcome> Memberships::ChangeSource(const Address& group, uint32_t interface_index,
                                                       const Address& source, SourceMode mode, Change change) {
  Membership* m = FindMutable(group, interface_index);
  if (m == nullptr) return Err(EINVAL);
  SourceFilter& f = m->filter;
  if (f.mode != mode && f.fixed) return Err(EINVAL);
  f.mode = mode;
  auto it = std::ranges::find(f.sources, source);
  if (change == Change::kRemove) {
    if (it == f.sources.end()) return Err(EADDRNOTAVAIL);
    if (f.sources.size() == 1 && mode == SourceMode::kInclude) return Outcome::kLastRemoved;
    f.sources.erase(it);
    return Outcome::kChanged;
  }
  if (f.sources.size() >= MaxSources(group.family())) return Err(ENOBUFS);
  if (it != f.sources.end()) return Err(EADDRNOTAVAIL);
  f.sources.push_back(source);
  f.fixed = true;
  return Outcome::kChanged;
}

Result<> Memberships::SetFilter(const Address& group, uint32_t interface_index, SourceFilter filter) {
  if (filter.sources.size() > MaxSources(group.family())) return Err(ENOBUFS);
  Membership* m = FindMutable(group, interface_index);
  if (m == nullptr) return Err(EINVAL);
  m->filter = std::move(filter);
  m->filter.fixed = !m->filter.sources.empty();
  return {};
}

}  // namespace redoubt::netstack
