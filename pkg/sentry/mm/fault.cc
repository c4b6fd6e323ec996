// Page faults: the guest's own, and those of the Sentry on its behalf.
#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "pkg/log/log.h"
#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

namespace redoubt::mm {

using internal::Pma;
using internal::PmaAccess;
using internal::PmaMap;
using internal::Vma;
using internal::VmaMap;

namespace {

// A fault costs the platform far more than a page does (some 15 us), so each brings in what lies around it. The memory
// file's pages are committed only when touched, so a larger window wastes no memory; a copy does. The platform is not
// asked to populate: what is not touched afterwards would cost more than is saved.
constexpr uint64_t kTranslateWindow = uint64_t{2} << 20;
constexpr uint64_t kBeforeWindow = uint64_t{256} << 10;
constexpr uint64_t kMapWindow = uint64_t{2} << 20;
constexpr uint64_t kTakeWindow = uint64_t{2} << 20;  // not smaller than kCopyWindow
// New memory: a mapping up to the first size whole. In a larger one the second, and the third where the pages next to
// the window are there already. Not more for a start, since what is allocated counts as used (think of stacks of
// threads).
constexpr uint64_t kAllocateWhole = uint64_t{1} << 20;
constexpr uint64_t kAllocateFirst = uint64_t{256} << 10;
constexpr uint64_t kAllocateMore = uint64_t{2} << 20;
// Copying into memory that the host has committed costs 0.2 us a page, into fresh memory 3 us.
constexpr uint64_t kCopyWindow = uint64_t{64} << 10;
constexpr uint64_t kFreshCopyWindow = uint64_t{16} << 10;
constexpr uint64_t kStackStep = uint64_t{64} << 10;
constexpr uint64_t kStackGuard = 256 * kPageSize;

// The aligned block of `size` bytes (a power of two) around `page`.
AddrRange Window(Addr page, uint64_t size) {
  Addr start = page & ~(size - 1);
  return {start, start + size < start ? ~kPageMask : start + size};
}

}  // namespace

Result<> MemoryManager::HandleUserFault(Addr addr, AccessType access, bool access_known, Addr) {
  fiber::MutexLock lock(mapping_mu_);
  VmaIterator vma = FindOrGrowStack(PageRoundDown(addr));
  if (vma == vmas_.end()) return Err(EFAULT);
  AccessType want = access;
  if (!access_known && vma->second.value.access.write) want.write = true;
  {
    sync::MutexLock active(active_mu_);
    guest_runs_ = true;
    if (MapInherited()) {
      PmaIterator pma = pmas_.Find(addr);
      if (pma != pmas_.end() && pma->second.value.mapped && pma->second.value.access.Allows(want)) return {};
    }
  }
  return FaultIn(vma, PageRoundDown(addr), want, Mode::kNormal);
}

MemoryManager::VmaIterator MemoryManager::FindOrGrowStack(Addr page) {
  VmaIterator it = vmas_.FirstEndingAfter(page);
  while (it != vmas_.end() && it->second.value.hidden != 0 && VmaMap::Start(it) > page) ++it;
  if (it == vmas_.end() || VmaMap::Start(it) <= page) return it;
  const Addr start = VmaMap::Start(it);
  const Addr end = VmaMap::End(it);
  if (!it->second.value.grows_down || end - page > limits_.stack) return vmas_.end();
  // A mapping right below is a guard unless it is a stack itself, or cannot be accessed.
  Addr floor = platform_.min_user_address();
  VmaIterator below = it;
  while (below != vmas_.begin() && (below == it || below->second.value.hidden != 0)) --below;
  if (below != it && below->second.value.hidden == 0) {
    floor = std::max(floor, VmaMap::End(below));
    if (below->second.value.access.any() && !below->second.value.grows_down) floor += kStackGuard;
  }
  if (page < floor) return vmas_.end();
  Addr lowest = limits_.stack < end ? PageRoundDown(end - limits_.stack + kPageMask) : 0;
  Addr new_start = std::max({page & ~(kStackStep - 1), floor, lowest});
  new_start = std::min(new_start, page);
  if (!CheckLimits(start - new_start, false, {})) {
    new_start = page;
    if (!CheckLimits(start - new_start, false, {})) return vmas_.end();
  }
  Vma vma = it->second.value;
  if (vma.mappable != nullptr) {
    // mmap(2) allows MAP_GROWSDOWN on files; offsets would have to go down too.
    uint64_t delta = start - new_start;
    if (vma.offset < delta) return vmas_.end();
    vma.offset -= delta;
    if (!vma.mappable->AddMapping(*this, {new_start, start}, vma.offset, vma.shared && vma.access.write))
      return vmas_.end();
  }
  DisplaceHidden({new_start, start});
  InsertVma({new_start, start}, std::move(vma));
  return vmas_.Find(page);
}

Result<> MemoryManager::Fault(Addr addr, AccessType want, Mode mode) {
  const Addr page = PageRoundDown(addr);
  VmaIterator it = FindOrGrowStack(page);
  if (it == vmas_.end()) return Err(EFAULT);
  return FaultIn(it, page, want, mode);
}

Result<> MemoryManager::FaultIn(VmaIterator it, Addr page, AccessType want, Mode mode) {
  const Vma& vma = it->second.value;
  if (vma.hidden != 0 && want.write) return Err(EFAULT);
  if (mode == Mode::kNormal) {
    if (!internal::Effective(vma.access).Allows(want)) return Err(EACCES);
  } else {
    if (!internal::Effective(vma.max_access).read) return Err(EACCES);
    // Writing for a debugger must end in a private copy, or be allowed anyway.
    if (want.write && vma.shared && !vma.access.write) return Err(EACCES);
  }
  for (;;) {
    {
      sync::MutexLock active(active_mu_);
      PmaIterator pma = pmas_.Find(page);
      if (pma == pmas_.end()) {
        if (vma.mappable == nullptr) return FaultAnonymous(page, it);
      } else if (!want.write || pma->second.value.writable) {
        return MapAround(page, pma);
      } else if (!vma.shared) {
        return BreakCopyOnWrite(page, pma, it);
      }
    }
    TRY(FaultMappable(page, it, want));
    if (!want.write || vma.shared) return {};
    // A private page of a file that is to be written: now there is something to copy.
  }
}

AddrRange MemoryManager::GapAround(Addr page, AddrRange bounds) {
  AddrRange gap = bounds;
  PmaIterator above = pmas_.FirstEndingAfter(page);
  if (above != pmas_.end()) gap.end = std::min(gap.end, PmaMap::Start(above));
  if (above != pmas_.begin()) gap.start = std::max(gap.start, PmaMap::End(std::prev(above)));
  return gap;
}

Result<> MemoryManager::FaultAnonymous(Addr page, VmaIterator it) {
  const Vma& vma = it->second.value;
  AddrRange bounds{VmaMap::Start(it), VmaMap::End(it)};
  if (bounds.length() > kAllocateWhole) {
    const AddrRange first = Window(page, kAllocateFirst).Intersect(bounds);
    const bool goes_on = (first.start > bounds.start && pmas_.Find(first.start - 1) != pmas_.end()) ||
                         (first.end < bounds.end && pmas_.Find(first.end) != pmas_.end());
    bounds = goes_on ? Window(page, kAllocateMore).Intersect(bounds) : first;
  }
  const AddrRange range = GapAround(page, bounds);
  if (range.length() <= internal::FirstTouch::kMaxLength && guest_runs_) first_touch_.Touched();
  Result<> added = AddPages(range, vma.access);
  if (!added && pmas_.Find(page) == pmas_.end()) added = AddPages({page, page + kPageSize}, vma.access);
  return added;
}

Result<> MemoryManager::AddPages(AddrRange range, AccessType access) {
  memmap::FileRange pages = TRY(memory_file_.Allocate(range.length()));
  return InstallPages(range, Pma{.offset = pages.start,
                                 .access = PmaAccess(access, true),
                                 .writable = true,
                                 .private_copy = true,
                                 .shared = false});
}

Result<> MemoryManager::FaultMappable(Addr page, VmaIterator it, AccessType want) {
  const Vma& vma = it->second.value;
  const bool write = vma.shared && want.write;
  const AddrRange bounds{VmaMap::Start(it), VmaMap::End(it)};
  // What lies before the page comes along, as code runs anywhere in its file. Not to be written though: a file may be
  // told page by page what becomes dirty.
  Addr at = page;
  if (!write) {
    sync::MutexLock active(active_mu_);
    if (pmas_.Find(page) == pmas_.end()) at = GapAround(page, Window(page, kBeforeWindow).Intersect(bounds)).start;
  }
  for (;;) {
    Addr end = std::min(Window(page, kTranslateWindow).end, bounds.end);
    uint64_t seen;
    {
      sync::MutexLock active(active_mu_);
      seen = invalidations_;
      // Up to the next page that is present: if this one is, to be written now, then up to the next that is not so.
      PmaIterator next = pmas_.FirstEndingAfter(at);
      if (next != pmas_.end()) end = std::min(end, PmaMap::Start(next) > at ? PmaMap::Start(next) : PmaMap::End(next));
    }
    Result<memmap::FileRange> translated =
        vma.mappable->Translate(vma.After(at - bounds.start).offset, end - at,
                                AccessType{.read = true, .write = write, .execute = vma.access.execute});
    if (!translated) {
      if (at == page) return Err(translated.error());
      at = page;
      continue;
    }
    memmap::FileRange pages = *translated;
    CHECK(pages.length() > 0 && IsPageAligned(pages.start) && IsPageAligned(pages.end),
          "a Mappable's pages are no pages");
    if (pages.length() > end - at) {
      memory_file_.DecRef({pages.start + (end - at), pages.end});
      pages.end = pages.start + (end - at);
    }
    sync::MutexLock active(active_mu_);
    if (invalidations_ != seen) {
      memory_file_.DecRef(pages);
      continue;
    }
    const AddrRange range{at, at + pages.length()};
    const Pma pma{.offset = pages.start,
                  .access = PmaAccess(vma.access, write),
                  .writable = write,
                  .private_copy = false,
                  .shared = vma.shared};
    const bool reached = range.Contains(page);
    if (reached && (vma.shared || !want.write)) return InstallPages(range, pma);
    // Only present, for a start: this is before the page that matters, or a copy will follow, and the platform is asked
    // for both at once. Nothing was there.
    pmas_.Insert(range.start, range.end, pma);
    AddResident(range.length());
    if (reached) return {};
    at = range.end;
  }
}

Result<> MemoryManager::BreakCopyOnWrite(Addr page, PmaIterator it, VmaIterator vma_it) {
  const Vma& vma = vma_it->second.value;
  const Pma pma = it->second.value;
  const AddrRange segment{PmaMap::Start(it), PmaMap::End(it)};
  auto offset_of = [&](Addr a) { return pma.offset + (a - segment.start); };

  // The neighbours in the same state come along. A segment of pages may reach into another VMA, of other protection.
  const AddrRange bounds = segment.Intersect({VmaMap::Start(vma_it), VmaMap::End(vma_it)});
  const AddrRange take = Window(page, kTakeWindow).Intersect(bounds);
  std::array<uint32_t, kTakeWindow / kPageSize> counts{};
  if (pma.private_copy) {
    memory_file_.RefCounts({offset_of(take.start), offset_of(take.end)},
                           std::span(counts).first(take.length() / kPageSize));
  }
  auto sole = [&](Addr a) { return counts[(a - take.start) / kPageSize] == 1; };
  const bool in_place = sole(page);
  AddrRange range{page, page + kPageSize};
  auto widen = [&](AddrRange window) {
    window = window.Intersect(take);
    while (range.start > window.start && sole(range.start - kPageSize) == in_place) range.start -= kPageSize;
    while (range.end < window.end && sole(range.end) == in_place) range.end += kPageSize;
  };
  widen(Window(page, in_place ? kTakeWindow : kCopyWindow));
  // What else the platform has not mapped of the segment comes along for reading.
  AddrRange around;
  if (!pma.mapped && pma.access.any()) around = Window(page, kMapWindow).Intersect(segment);

  Pma result{.offset = offset_of(range.start),
             .access = PmaAccess(vma.access, true),
             .writable = true,
             .private_copy = true,
             .shared = false};
  if (in_place) {
    // The other owners are gone and nobody can become one: references are taken only through this map, under its lock.
    memory_file_.IncRef({result.offset, result.offset + range.length()});
    return InstallPages(range, result, around);
  }
  if (hot_) hot_->Note(page);
  if (parents_hot_) parents_hot_->Note(page);
  std::optional<memmap::FileRange> pages = memory_file_.Recycle(range.length());
  if (!pages) {
    range = range.Intersect(Window(page, kFreshCopyWindow));
    pages = memory_file_.Recycle(range.length());
  }
  if (!pages) {
    Result<memmap::FileRange> fresh = memory_file_.Allocate(range.length());
    if (!fresh) {
      range = {page, page + kPageSize};
      fresh = memory_file_.Allocate(kPageSize);
    }
    if (!fresh) return Err(fresh.error());
    pages = *fresh;
  }
  Result<size_t> copied =
      safecopy::CopyBetween(memory_file_.At(pages->start), memory_file_.At(offset_of(range.start)), range.length());
  if (!copied || *copied != range.length()) {
    // The host could not commit the memory.
    memory_file_.DecRef(*pages);
    return Err(ENOMEM);
  }
  result.offset = pages->start;
  return InstallPages(range, result, around);
}

Result<> MemoryManager::InstallPages(AddrRange range, Pma pma, AddrRange around) {
  // The mapping first: it replaces the old one, and then the old pages may go.
  Result<> mapped;
  if (!guest_runs_) {
    Inherit(around.empty() ? range : around);
  } else if (around.empty()) {
    mapped = MapSegment(range, pma);
  } else {
    internal::MapBatch batch;
    PmaIterator it = pmas_.Isolate(around.start, around.end);
    if (around != range) batch.Map(around, it->second.value);
    if (pma.access.any()) batch.Map(range, pma);
    mapped = Apply(batch);
    it->second.value.mapped = true;
    if (!mapped) ForgetMapped(around);
  }
  pma.mapped = guest_runs_ && mapped && pma.access.any();
  std::vector<memmap::FileRange> old;
  bool was_mapped = false;
  pmas_.Remove(range.start, range.end, [&](Addr start, Addr end, const Pma& p) {
    old.push_back({p.offset, p.offset + (end - start)});
    was_mapped |= p.mapped;
    resident_.store(resident_.load(std::memory_order_relaxed) - (end - start), std::memory_order_relaxed);
  });
  bool safe = pma.mapped || !was_mapped || UnmapFromGuest(range);
  if (safe) {
    for (memmap::FileRange r : old) memory_file_.DecRef(r);
  }
  pmas_.Insert(range.start, range.end, pma);
  AddResident(range.length());
  return mapped;
}

Result<> MemoryManager::MapSegment(AddrRange range, const Pma& pma) {
  if (!pma.access.any()) return {};
  return as_->MapFile(range.start, memory_file_.fd(), pma.offset, range.length(), pma.access, false);
}

Result<> MemoryManager::MapAround(Addr page, PmaIterator it) {
  const AddrRange segment{PmaMap::Start(it), PmaMap::End(it)};
  Pma pma = it->second.value;
  // If it is mapped already, another thread was quicker. Should the same page fault again, it alone is done again to be
  // sure.
  if (pma.mapped && std::exchange(last_spurious_, page) != page) return {};
  last_spurious_ = 0;
  const AddrRange range = Window(page, pma.mapped ? kPageSize : kMapWindow).Intersect(segment);
  Pma part = pma.After(range.start - segment.start);
  if (!guest_runs_) {
    Inherit(range);
    return {};
  }
  TRY(MapSegment(range, part));
  if (pma.mapped || !pma.access.any()) return {};
  part.mapped = true;
  pmas_.Remove(range.start, range.end, [](Addr, Addr, const Pma&) {});
  pmas_.Insert(range.start, range.end, part);
  return {};
}

void MemoryManager::Populate(AddrRange range, bool for_write) {
  Addr at = range.start;
  while (at < range.end) {
    VmaIterator vma = vmas_.Find(at);
    if (vma == vmas_.end()) return;
    AccessType want{.read = true, .write = for_write && vma->second.value.access.write && !vma->second.value.shared};
    if (!Fault(at, want, Mode::kNormal)) return;
    sync::MutexLock active(active_mu_);
    PmaIterator pma = pmas_.Find(at);
    at = pma == pmas_.end() ? at + kPageSize : PmaMap::End(pma);
  }
}

}  // namespace redoubt::mm
