// madvise, msync, mincore and the mlock family.
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

namespace redoubt::mm {

using internal::PmaMap;
using internal::Vma;
using internal::VmaMap;

Result<> MemoryManager::MAdvise(Addr addr, uint64_t length, int advice) {
  AddrRange range;
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
    case MADV_DONTNEED_LOCKED:
      break;
    default:
      return Err(EINVAL);
  }
  TRY(CheckRange(addr, length, EINVAL, &range));
  if (range.empty()) return {};
  fiber::MutexLock lock(mapping_mu_);
  auto set = [&](bool Vma::* flag, bool value) REQUIRES(mapping_mu_) {
    return ChangeVmas(range, [&](Vma& vma, AddrRange) -> Result<> {
      vma.*flag = value;
      return {};
    });
  };
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE: {
      // Free memory may be dropped at any time, so that is done at once. What lies side by side goes together.
      AddrRange run;
      Result<> r = ForEachVma(range, [&](const Vma& vma, AddrRange part) REQUIRES(mapping_mu_) -> Result<> {
        if (vma.locked && advice != MADV_DONTNEED_LOCKED) return Err(EINVAL);
        if (advice == MADV_FREE && (vma.shared || vma.mappable != nullptr)) return Err(EINVAL);
        if (part.start != run.end && !run.empty()) DropPages(std::exchange(run, {}));
        if (run.empty()) run.start = part.start;
        run.end = part.end;
        return {};
      });
      if (!run.empty()) DropPages(run);
      return r;
    }
    case MADV_REMOVE:
      return ForEachVma(range, [&](const Vma& vma, AddrRange) -> Result<> {
        if (vma.locked || vma.mappable == nullptr) return Err(EINVAL);
        if (!vma.shared || !vma.access.write) return Err(EACCES);
        return Err(EOPNOTSUPP);  // no Mappable can be punched
      });
    case MADV_DONTFORK:
      return set(&Vma::dont_fork, true);
    case MADV_DOFORK:
      return set(&Vma::dont_fork, false);
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
      return ChangeVmas(range, [&](Vma& vma, AddrRange) -> Result<> {
        if (advice == MADV_WIPEONFORK && (vma.shared || vma.mappable != nullptr)) return Err(EINVAL);
        vma.wipe_on_fork = advice == MADV_WIPEONFORK;
        return {};
      });
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      return AdvisePopulate(range, advice == MADV_POPULATE_WRITE);
    default:  // hints without effect here
      return ForEachVma(range, [](const Vma&, AddrRange) -> Result<> { return {}; });
  }
}

Result<> MemoryManager::AdvisePopulate(AddrRange range, bool for_write) {
  for (Addr at = range.start; at < range.end;) {
    if (vmas_.Find(at) == vmas_.end()) return Err(ENOMEM);
    if (Result<> r = Fault(at, for_write ? kReadWrite : kRead, Mode::kNormal); !r) {
      if (r.error() == Errno(EACCES)) return Err(EINVAL);
      return r.error() == Errno(ENOMEM) ? Err(ENOMEM) : Err(EFAULT);
    }
    sync::MutexLock active(active_mu_);
    PmaIterator pma = pmas_.Find(at);
    at = pma == pmas_.end() ? at + kPageSize : PmaMap::End(pma);
  }
  return {};
}

Result<> MemoryManager::MSync(Addr addr, uint64_t length, int flags) {
  if ((flags & ~(MS_ASYNC | MS_SYNC | MS_INVALIDATE)) != 0) return Err(EINVAL);
  if ((flags & MS_ASYNC) != 0 && (flags & MS_SYNC) != 0) return Err(EINVAL);
  AddrRange range;
  TRY(CheckRange(addr, length, ENOMEM, &range));
  if (range.empty()) return {};
  // The files are written without our lock: that may take long.
  struct Part {
    RefPtr<memmap::MappingIdentity> identity;
    uint64_t offset;
    uint64_t length;
  };
  std::vector<Part> parts;
  Result<> mapped;
  {
    fiber::MutexLock lock(mapping_mu_);
    mapped = ForEachVma(range, [&](const Vma& vma, AddrRange part) REQUIRES(mapping_mu_) -> Result<> {
      if ((flags & MS_INVALIDATE) != 0 && vma.locked) return Err(EBUSY);
      if ((flags & MS_SYNC) == 0 || !vma.shared || !vma.identity) return {};
      uint64_t offset = vma.After(part.start - VmaMap::Start(vmas_.Find(part.start))).offset;
      parts.push_back({vma.identity, offset, part.length()});
      return {};
    });
  }
  if (!mapped && mapped.error() != Errno(ENOMEM)) return mapped;
  for (const Part& p : parts) TRY(p.identity->MappedSync(p.offset, p.length));
  return mapped;
}

Result<std::vector<uint8_t>> MemoryManager::MIncore(Addr addr, uint64_t length) {
  AddrRange range;
  TRY(CheckRange(addr, length, ENOMEM, &range));
  fiber::MutexLock lock(mapping_mu_);
  // Before the vector is made: the guest chooses the length.
  TRY(ForEachVma(range, [](const Vma&, AddrRange) -> Result<> { return {}; }));
  std::vector<uint8_t> present(range.length() / kPageSize);
  sync::MutexLock active(active_mu_);
  for (auto it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && PmaMap::Start(it) < range.end; ++it) {
    AddrRange part = range.Intersect({PmaMap::Start(it), PmaMap::End(it)});
    for (Addr a = part.start; a < part.end; a += kPageSize) present[(a - range.start) / kPageSize] = 1;
  }
  return present;
}

// Guest memory is never swapped by us, so locking is bringing the pages in, and remembering for /proc and madvise.

Result<> MemoryManager::MLock(Addr addr, uint64_t length, bool lock_pages, bool on_fault) {
  AddrRange range;
  Addr start = PageRoundDown(addr);
  uint64_t span;
  if (__builtin_add_overflow(length, addr - start, &span)) return Err(EINVAL);
  TRY(CheckRange(start, span, EINVAL, &range));
  if (range.empty()) return {};
  fiber::MutexLock lock(mapping_mu_);
  Result<> r = ChangeVmas(range, [&](Vma& vma, AddrRange) -> Result<> {
    vma.locked = lock_pages;
    return {};
  });
  if (r && lock_pages && !on_fault) Populate(range, true);
  return r;
}

Result<> MemoryManager::MLockAll(int flags) {
  if (flags == 0 || (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) != 0 || flags == MCL_ONFAULT)
    return Err(EINVAL);
  fiber::MutexLock lock(mapping_mu_);
  lock_future_ = (flags & MCL_FUTURE) != 0;
  if ((flags & MCL_CURRENT) == 0) return {};
  std::vector<AddrRange> ranges;
  for (auto it = vmas_.begin(); it != vmas_.end(); ++it) {
    if (it->second.value.hidden != 0) continue;
    it->second.value.locked = true;
    ranges.push_back({VmaMap::Start(it), VmaMap::End(it)});
  }
  vmas_.MergeRange(0, ~uint64_t{0});
  if ((flags & MCL_ONFAULT) != 0) return {};
  for (AddrRange r : ranges) Populate(r, true);
  return {};
}

Result<> MemoryManager::MUnlockAll() {
  fiber::MutexLock lock(mapping_mu_);
  lock_future_ = false;
  for (auto it = vmas_.begin(); it != vmas_.end(); ++it) it->second.value.locked = false;
  vmas_.MergeRange(0, ~uint64_t{0});
  return {};
}

}  // namespace redoubt::mm
