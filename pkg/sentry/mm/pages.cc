// Pages: how they leave an address space, and how a fork shares them.
#include "pkg/sentry/mm/pages.h"

#include <vector>

#include "pkg/log/log.h"
#include "pkg/sentry/mm/memory_manager.h"

namespace redoubt::mm {

using internal::Pma;
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
  LOG_WARNING("the platform cannot unmap guest memory: {}", r.error().name());
  return false;
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

Result<RefPtr<MemoryManager>> MemoryManager::Fork() {
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
    child->InsertVma(range, std::move(vma));
  }
  CopyPagesToChild(*child);
  return child;
}

void MemoryManager::CopyPagesToChild(MemoryManager& child) NO_THREAD_SAFETY_ANALYSIS {
  sync::MutexLock active(active_mu_);
  sync::MutexLockNested child_active(child.active_mu_);
  // What must become read-only for the parent's own guest. Neighbours are unmapped by one call, and so is what lies
  // between them if nothing mapped does.
  AddrRange unmap;
  std::vector<AddrRange> to_unmap;
  for (auto it = pmas_.begin(); it != pmas_.end(); ++it) {
    AddrRange range{PmaMap::Start(it), PmaMap::End(it)};
    Pma& pma = it->second.value;
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
      child.pmas_.Insert(part.start, part.end, copy);
      child.AddResident(part.length());
      copied = true;
    }
    bool protect = copied && pma.private_copy && pma.writable;
    if (protect) {
      pma.writable = false;
      pma.access.write = false;
    }
    if (!pma.mapped) continue;
    if (protect) {
      pma.mapped = false;
      if (unmap.empty()) unmap.start = range.start;
      unmap.end = range.end;
    } else if (!unmap.empty()) {
      to_unmap.push_back(std::exchange(unmap, {}));
    }
  }
  if (!unmap.empty()) to_unmap.push_back(unmap);
  // A guest that keeps a writable view would write into the child's memory: it is the same guest's, and the platform is
  // broken anyway if it cannot unmap.
  for (AddrRange range : to_unmap) UnmapFromGuest(range);
  for (auto& [addr, patch] : patches_) {
    auto it = child.pmas_.Find(addr);
    if (it != child.pmas_.end() && it->second.value.private_copy) child.patches_.emplace(addr, patch);
  }
}

}  // namespace redoubt::mm
