// mremap.
#include <sys/mman.h>

#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

namespace redoubt::mm {

using internal::Pma;
using internal::Vma;
using internal::VmaMap;

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

Result<Addr> MemoryManager::MRemap(Addr old_addr, uint64_t old_size, uint64_t new_size, int flags, Addr new_addr) {
  if ((flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) return Err(EINVAL);
  const bool may_move = (flags & MREMAP_MAYMOVE) != 0;
  const bool fixed = (flags & MREMAP_FIXED) != 0;
  const bool keep_old = (flags & MREMAP_DONTUNMAP) != 0;
  if ((fixed || keep_old) && !may_move) return Err(EINVAL);
  AddrRange old;
  AddrRange wanted;
  TRY(CheckRange(old_addr, old_size, EINVAL, &old));
  TRY(CheckRange(fixed ? new_addr : 0, new_size, EINVAL, &wanted));
  if (wanted.empty()) return Err(EINVAL);
  if (keep_old && old.length() != wanted.length()) return Err(EINVAL);
  if (fixed) {
    if (wanted.end > platform_.max_user_address() || wanted.Overlaps(old)) return Err(EINVAL);
    if (wanted.start < platform_.min_user_address()) return Err(EPERM);
  }

  fiber::MutexLock lock(mapping_mu_);
  VmaIterator it = vmas_.Find(old.start);
  if (it == vmas_.end() || it->second.value.hidden != 0) return Err(EFAULT);
  const bool duplicate = old.empty();
  // Old size 0 maps the same memory a second time; for private memory that means nothing: mremap(2), BUGS.
  if (duplicate && (!it->second.value.shared || !may_move)) return Err(EINVAL);
  if (fixed) {
    DisplaceHidden(wanted);
    TRY(UnmapLocked(wanted));
  }
  it = vmas_.Find(old.start);

  if (!duplicate && wanted.length() <= old.length()) {
    AddrRange tail{old.start + wanted.length(), old.end};
    if (!tail.empty()) {
      TRY(UnmapLocked(tail));
      old.end = tail.start;
      it = vmas_.Find(old.start);
      if (it == vmas_.end()) return Err(EFAULT);
    }
    if (!fixed && !keep_old) return old.start;
  }
  // More than one mapping cannot be moved or grown.
  if (VmaMap::End(it) < old.end) return Err(EFAULT);
  const uint64_t grows = wanted.length() - old.length();
  const Vma& vma = it->second.value;
  if (vma.mappable != nullptr && vma.After(old.start - VmaMap::Start(it)).offset + wanted.length() < wanted.length()) {
    return Err(EINVAL);
  }
  TRY(CheckLimits(keep_old ? wanted.length() : grows, vma.is_data(), {}));

  // In place if the mapping ends here and there is room behind it.
  AddrRange behind{old.end, old.end + grows};
  if (!fixed && !keep_old && !duplicate && VmaMap::End(it) == old.end && behind.end > old.end &&
      behind.end <= platform_.max_user_address() && IsFree(behind)) {
    Vma more = vma.After(old.end - VmaMap::Start(it));
    const bool populate = more.locked;
    if (more.mappable != nullptr) {
      TRY(more.mappable->AddMapping(*this, behind, more.offset, more.shared && more.access.write));
    }
    InsertVma(behind, std::move(more));
    if (populate) Populate(behind, true);
    return old.start;
  }
  if (!may_move) return Err(ENOMEM);
  if (!fixed) {
    MMapOptions options{.addr = new_addr};
    if (!keep_old) options.addr = 0;
    Addr start = TRY(ChooseAddress(options, wanted.length()));
    wanted = {start, start + wanted.length()};
  }
  return Move(it, old, wanted, keep_old || duplicate);
}

Result<Addr> MemoryManager::Move(VmaIterator it, AddrRange from, AddrRange to, bool keep_old) {
  Vma vma = it->second.value.After(from.start - VmaMap::Start(it));
  const bool populate = vma.locked;
  if (vma.mappable != nullptr) {
    TRY(vma.mappable->AddMapping(*this, to, vma.offset, vma.shared && vma.access.write));
  }
  InsertVma(to, std::move(vma));
  if (!from.empty()) {
    sync::MutexLock active(active_mu_);
    // A patch jumps a distance, and not to the same place from elsewhere.
    RestorePatches(from, kEverywhere);
    // The guest loses the old place first; then nothing can change under the move. If the platform fails, the pages
    // stay where the guest still has them, and the new place is filled by faults.
    if (UnmapPmas(from)) {
      internal::MapBatch batch;
      std::vector<std::pair<AddrRange, Pma>> pages;
      pmas_.Remove(from.start, from.end, [&](Addr start, Addr end, const Pma& pma) {
        pages.emplace_back(AddrRange{start - from.start + to.start, end - from.start + to.start}, pma);
      });
      for (auto& [range, pma] : pages) {
        if (pma.access.any()) batch.Map(range, pma);
      }
      bool mapped = false;
      if (batch.ops().size() <= kMaxBatch) mapped = Apply(batch).has_value() || !UnmapFromGuest(to);
      for (auto& [range, pma] : pages) {
        pma.mapped = mapped && pma.access.any();
        pmas_.Insert(range.start, range.end, pma);
      }
    }
  }
  if (!keep_old && !from.empty()) TRY(UnmapLocked(from));
  if (populate) Populate(to, true);
  return to.start;
}

}  // namespace redoubt::mm
