// Template bodies that several of the memory manager's sources use.
#ifndef REDOUBT_PKG_SENTRY_MM_PAGES_H_
#define REDOUBT_PKG_SENTRY_MM_PAGES_H_

#include <algorithm>
#include <utility>

#include "pkg/sentry/mm/memory_manager.h"

namespace redoubt::mm {

inline constexpr AddrRange kEverywhere{0, ~uint64_t{0}};

template <typename F>
void MemoryManager::DropPmasIf(AddrRange range, F&& f) {
  using internal::PmaMap;
  // One call to the platform for all: from the first mapped page to go to the last, in runs between pages that stay.
  auto flush = [&](AddrRange run, bool mapped) REQUIRES(active_mu_) {
    if (run.empty()) return;
    bool safe = !mapped || UnmapFromGuest(run);
    pmas_.Remove(run.start, run.end, [&](uint64_t start, uint64_t end, const internal::Pma& pma) {
      resident_.store(resident_.load(std::memory_order_relaxed) - (end - start), std::memory_order_relaxed);
      // Better lost than seen by a guest that should not.
      if (safe) memory_file_.DecRef({pma.offset, pma.offset + (end - start)});
    });
    if (!patches_.empty()) ForgetPatches(run);
  };
  AddrRange run;
  bool mapped = false;
  // Collected first, since a flush changes the map.
  std::vector<std::pair<AddrRange, bool>> runs;
  for (auto it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && PmaMap::Start(it) < range.end; ++it) {
    AddrRange part = range.Intersect({PmaMap::Start(it), PmaMap::End(it)});
    if (!f(it->second.value)) {
      if (!run.empty()) runs.emplace_back(std::exchange(run, {}), std::exchange(mapped, false));
      continue;
    }
    if (run.empty()) run.start = part.start;
    run.end = part.end;
    mapped |= it->second.value.mapped;
  }
  if (!run.empty()) runs.emplace_back(run, mapped);
  for (auto& [r, m] : runs) flush(r, m);
}

template <typename F>
Result<> MemoryManager::ForEachVma(AddrRange range, F&& f) {
  using internal::VmaMap;
  Addr at = range.start;
  bool hole = false;
  for (auto it = vmas_.FirstEndingAfter(range.start); it != vmas_.end() && VmaMap::Start(it) < range.end; ++it) {
    if (it->second.value.hidden != 0) continue;  // unmapped, for all that the guest can know
    AddrRange part = range.Intersect({VmaMap::Start(it), VmaMap::End(it)});
    if (part.start > at) hole = true;
    at = part.end;
    if (Result<> r = f(it->second.value, part); !r) return r;
  }
  if (hole || at < range.end) return Err(ENOMEM);
  return {};
}

template <typename F>
Result<> MemoryManager::ChangeVmas(AddrRange range, F&& f) {
  vmas_.Isolate(range.start, range.end);
  Result<> r = ForEachVma(range, std::forward<F>(f));
  vmas_.MergeRange(range.start, range.end + 1);
  return r;
}

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_PAGES_H_
