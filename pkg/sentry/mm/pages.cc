// Pages: how they leave an address space, and how a fork shares them.
#include "pkg/sentry/mm/pages.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pkg/log/rate_limit.h"
#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/sentry/mm/memory_manager.h"

namespace redoubt::mm {

using internal::Pma;
using internal::PmaAccess;
using internal::PmaMap;
using internal::Vma;
using internal::VmaMap;

void MemoryManager::AddResident(uint64_t bytes) {
  uint64_t now = resident_.load(std::memory_order_relaxed) + bytes;
  resident_.store(now, std::memory_order_relaxed);
  if (now > max_resident_.load(std::memory_order_relaxed)) max_resident_.store(now, std::memory_order_relaxed);
}

bool MemoryManager::UnmapFromGuest(AddrRange range) {
  Result<> r = as_->Unmap(range.start, range.length());
  // A dead host process reaches nothing any more.
  if (r || r.error() == Errno(ESRCH)) return true;
  LOG_WARNING_LIMITED("the platform cannot unmap guest memory: {}", r.error().name());
  return false;
}

void MemoryManager::ForgetMapped(AddrRange range) {
  // If it cannot even forget, anything may still be mapped.
  const bool mapped = !UnmapFromGuest(range);
  for (PmaIterator it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && PmaMap::Start(it) < range.end; ++it) {
    it->second.value.mapped = mapped;
  }
}

bool MemoryManager::UnmapPmas(AddrRange range) {
  AddrRange mapped;
  PmaIterator first = pmas_.Isolate(range.start, range.end);
  auto in_range = [&](PmaIterator it)
                      REQUIRES(active_mu_) { return it != pmas_.end() && PmaMap::Start(it) < range.end; };
  for (PmaIterator it = first; in_range(it); ++it) {
    if (!it->second.value.mapped) continue;
    if (mapped.empty()) mapped.start = PmaMap::Start(it);
    mapped.end = PmaMap::End(it);
  }
  if (mapped.empty()) return true;
  if (!UnmapFromGuest(mapped)) return false;
  for (PmaIterator it = first; in_range(it); ++it) it->second.value.mapped = false;
  return true;
}

void MemoryManager::DropRun(AddrRange all, AddrRange mapped) {
  const bool safe = mapped.empty() || UnmapFromGuest(mapped);
  uint64_t bytes = 0;
  pmas_.Remove(all.start, all.end, [&](Addr start, Addr end, const Pma& pma) {
    bytes += end - start;
    // Better lost than seen by a guest that should not.
    if (safe) memory_file_.DecRef({pma.offset, pma.offset + (end - start)});
  });
  resident_.store(resident_.load(std::memory_order_relaxed) - bytes, std::memory_order_relaxed);
  if (!patches_.empty()) ForgetPatches(all);
}

Result<> MemoryManager::Apply(const internal::MapBatch& batch) {
  std::span<const platform::MapOp> ops = batch.ops();
  while (!ops.empty()) {
    std::span<const platform::MapOp> some = ops.first(std::min(ops.size(), kMaxBatch));
    if (some.size() > 1) {
      TRY(as_->Batch(some));
    } else if (some[0].access.any()) {
      TRY(as_->MapFile(some[0].addr, memory_file_.fd(), some[0].offset, some[0].length, some[0].access, false));
    } else {
      TRY(as_->Unmap(some[0].addr, some[0].length));
    }
    ops = ops.subspan(some.size());
  }
  return {};
}

void MemoryManager::DropPmas(AddrRange range) {
  DropPmasIf(range, [](const Pma&) { return true; });
}

void MemoryManager::Invalidate(AddrRange range, bool invalidate_private) {
  sync::MutexLock active(active_mu_);
  invalidations_++;
  DropPmasIf(range, [&](const Pma& pma) { return !pma.private_copy || invalidate_private; });
}

void MemoryManager::DropPages(AddrRange range) {
  sync::MutexLock active(active_mu_);
  DropPmas(range);
}

Result<RefPtr<MemoryManager>> MemoryManager::Fork(std::initializer_list<Addr> written) {
  RefPtr<MemoryManager> child = TRY(Create(platform_, memory_file_));
  fiber::MutexLock lock(mapping_mu_);
  if (torn_down_) return Err(ENOMEM);
  // Nobody else knows the child; only its Mappables may come and invalidate.
  fiber::MutexLock child_lock(child->mapping_mu_);
  child->limits_ = limits_;
  child->mmap_top_ = mmap_top_;
  child->brk_ = brk_;
  child->exec_info_ = exec_info_;
  for (auto it = vmas_.begin(); it != vmas_.end(); ++it) {
    Vma vma = it->second.value;
    if (vma.dont_fork) continue;
    AddrRange range{VmaMap::Start(it), VmaMap::End(it)};
    vma.locked = false;  // mlock(2): not inherited
    if (vma.mappable != nullptr) {
      TRY(vma.mappable->AddMapping(*child, range, vma.offset, vma.shared && vma.access.write));
    }
    child->CountVma(range, vma);
    child->vmas_.Append(range.start, range.end, std::move(vma));
  }
  {
    sync::MutexLock active(active_mu_);
    if (!hot_) hot_ = MakeRef<internal::HotPages>();
    for (Addr addr : written) hot_->Note(PageRoundDown(addr));
  }
  CopyPagesToChild(*child);
  child->as_->Inherit(*as_);
  return child;
}

std::vector<std::pair<Addr, uint64_t>> MemoryManager::CopyHotPages(MemoryManager& child) NO_THREAD_SAFETY_ANALYSIS {
  std::vector<std::pair<Addr, uint64_t>> copies;
  // With other threads a copy would show their writes to one page and not the earlier ones to another: what is made
  // read-only stops them, as their next fault waits for the fork, but these pages stay writable.
  if (users_.load(std::memory_order_relaxed) > 1) return copies;
  for (Addr page : hot_->AtFork()) {
    const auto vma = child.vmas_.Find(page);
    const PmaIterator pma = pmas_.Find(page);
    if (vma == child.vmas_.end() || vma->second.value.wipe_on_fork || pma == pmas_.end()) continue;
    if (vma->second.value.access.write && !pma->second.value.shared) copies.emplace_back(page, 0);
  }
  if (copies.empty()) return copies;
  const uint64_t length = copies.size() * kPageSize;
  std::optional<memmap::FileRange> pages = memory_file_.Recycle(length);
  if (!pages) {
    Result<memmap::FileRange> fresh = memory_file_.Allocate(length);
    if (!fresh) return {};
    pages = *fresh;
  }
  uint64_t offset = pages->start;
  for (auto& [page, copy] : copies) {
    const PmaIterator pma = pmas_.Isolate(page, page + kPageSize);
    Result<size_t> copied =
        safecopy::CopyBetween(memory_file_.At(offset), memory_file_.At(pma->second.value.offset), kPageSize);
    if (!copied || *copied != kPageSize) {
      // The host could not commit the memory; then they are shared as others are.
      memory_file_.DecRef(*pages);
      return {};
    }
    copy = std::exchange(offset, offset + kPageSize);
  }
  return copies;
}

void MemoryManager::CopyPagesToChild(MemoryManager& child) NO_THREAD_SAFETY_ANALYSIS {
  sync::MutexLock active(active_mu_);
  sync::MutexLockNested child_active(child.active_mu_);
  const std::vector<std::pair<Addr, uint64_t>> hot = CopyHotPages(child);
  auto next_hot = hot.begin();
  child.parents_hot_ = hot_;
  // What must become read-only for the parent's own guest. It can go on reading: mapping a run of pages anew costs
  // about what unmapping it does, and a fault some ten times that. With very many runs, those further up are unmapped,
  // across what lies between them.
  internal::MapBatch batch;
  for (auto it = pmas_.begin(); it != pmas_.end(); ++it) {
    AddrRange range{PmaMap::Start(it), PmaMap::End(it)};
    Pma& pma = it->second.value;
    if (next_hot != hot.end() && next_hot->first == range.start) {
      const Pma copy{.offset = next_hot++->second,
                     .access = PmaAccess(child.vmas_.Find(range.start)->second.value.access, true),
                     .writable = true,
                     .private_copy = true,
                     .shared = false};
      child.pmas_.Append(range.start, range.end, copy);
      child.AddResident(range.length());
      if (pma.mapped) child.Inherit(range);
      batch.Keep();
      continue;
    }
    // VMAs of different kinds do not share a segment of pages unless both have the same flags, so each part is looked
    // up.
    bool copied = false;
    for (auto v = child.vmas_.FirstEndingAfter(range.start); v != child.vmas_.end() && VmaMap::Start(v) < range.end;
         ++v) {
      const Vma& vma = v->second.value;
      if (vma.wipe_on_fork && !vma.shared) continue;
      // A file's pages may have been invalidated while the child was not yet known to have any.
      if (!pma.private_copy && child.invalidations_ != 0) continue;
      AddrRange part = range.Intersect({VmaMap::Start(v), VmaMap::End(v)});
      Pma copy = pma.After(part.start - range.start);
      copy.mapped = false;
      if (copy.private_copy) {
        copy.writable = false;
        copy.access.write = false;
      }
      memory_file_.IncRef({copy.offset, copy.offset + part.length()});
      child.pmas_.Append(part.start, part.end, copy);
      child.AddResident(part.length());
      copied = true;
    }
    const bool protect = copied && pma.private_copy && pma.writable;
    if (protect) {
      pma.writable = false;
      pma.access.write = false;
    }
    if (!pma.mapped) continue;
    if (copied) child.Inherit(range);
    if (!protect) {
      batch.Keep();
    } else if (batch.ops().size() < kMaxBatch) {
      batch.Map(range, pma);
    } else {
      batch.Unmap(range);
      pma.mapped = false;
    }
  }
  if (!Apply(batch)) {
    // A guest that keeps a writable view would write into the child's memory: it is the same guest's, and the platform
    // is broken anyway if it cannot unmap either.
    ForgetMapped({batch.ops().front().addr, batch.ops().back().addr + batch.ops().back().length});
  }
  for (auto& [addr, patch] : patches_) {
    auto it = child.pmas_.Find(addr);
    if (it != child.pmas_.end() && it->second.value.private_copy) child.patches_.emplace(addr, patch);
  }
}

void MemoryManager::GuestStarts() {
  sync::MutexLock active(active_mu_);
  guest_runs_ = true;
  (void)MapInherited();
}

// What the parent's guest has used, or exec has written, the guest will mostly use too. Its first fault maps all that
// at once.

void MemoryManager::Inherit(AddrRange range) {
  if (!inherited_.empty() && inherited_.back().end == range.start) {
    inherited_.back().end = range.end;
  } else if (inherited_.size() < kMaxInherited) {
    inherited_.push_back(range);
  }
}

bool MemoryManager::MapInherited() {
  if (inherited_.empty()) return false;
  internal::MapBatch batch;
  std::ranges::sort(inherited_, {}, &AddrRange::start);
  for (AddrRange range : std::exchange(inherited_, {})) {
    for (PmaIterator it = pmas_.FirstEndingAfter(range.start); it != pmas_.end() && PmaMap::Start(it) < range.end;
         ++it) {
      Pma& pma = it->second.value;
      // Some of it may have been mapped or have been replaced meanwhile.
      if (pma.mapped || !pma.access.any() || batch.ops().size() == kMaxInherited) continue;
      batch.Map({PmaMap::Start(it), PmaMap::End(it)}, pma);
      pma.mapped = true;
    }
  }
  if (batch.empty()) return false;
  if (Apply(batch)) return true;
  ForgetMapped({batch.ops().front().addr, batch.ops().back().addr + batch.ops().back().length});
  return false;
}

}  // namespace redoubt::mm
