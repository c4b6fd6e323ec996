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
  // One call to the platform for each run of pages that go, from the first mapped one to the last. Mostly there is one
  // run. Collected first, since dropping changes the map.
  struct Run {
    AddrRange all;
    AddrRange mapped;
  };
  Run run;
  std::vector<Run> more;
  for (auto it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && PmaMap::Start(it) < range.end; ++it) {
    const AddrRange part = range.Intersect({PmaMap::Start(it), PmaMap::End(it)});
    if (!f(it->second.value)) {
      if (!run.all.empty()) more.push_back(std::exchange(run, {}));
      continue;
    }
    if (run.all.empty()) run.all.start = part.start;
    run.all.end = part.end;
    if (!it->second.value.mapped) continue;
    if (run.mapped.empty()) run.mapped.start = part.start;
    run.mapped.end = part.end;
  }
  for (const Run& r : more) DropRun(r.all, r.mapped);
  if (!run.all.empty()) DropRun(run.all, run.mapped);
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
