// mprotect.
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

namespace redoubt::mm {

using internal::Pma;
using internal::PmaMap;
using internal::Vma;
using internal::VmaMap;

Result<> MemoryManager::MProtect(Addr addr, uint64_t length, AccessType access, bool grows_down) {
  AddrRange range;
  TRY(CheckRange(addr, length, ENOMEM, &range));
  if (range.empty()) return {};
  fiber::MutexLock lock(mapping_mu_);
  if (grows_down) {
    // PROT_GROWSDOWN: down to the start of the stack that the range begins in.
    VmaIterator it = vmas_.FirstEndingAfter(range.start);
    while (it != vmas_.end() && it->second.value.hidden != 0) ++it;
    if (it == vmas_.end() || VmaMap::Start(it) >= range.end) return Err(ENOMEM);
    if (!it->second.value.grows_down) return Err(EINVAL);
    range.start = VmaMap::Start(it);
  }
  Result<> changed = ChangeVmas(range, [&](Vma& vma, AddrRange part) REQUIRES(mapping_mu_) -> Result<> {
    if (!vma.max_access.Allows(access)) return Err(EACCES);
    if (vma.access == access) return {};
    Vma changed = vma;
    changed.access = access;
    if (changed.is_data() && !vma.is_data() && data_size_ + part.length() > limits_.data) return Err(ENOMEM);
    if (vma.mappable != nullptr && vma.shared && access.write != vma.access.write) {
      TRY(vma.mappable->AddMapping(*this, part, vma.offset, access.write));
      vma.mappable->RemoveMapping(*this, part, vma.offset, vma.access.write);
    }
    if (access.write && !vma.access.write) {
      // What is to be written may be a part of a patched instruction.
      sync::MutexLock active(active_mu_);
      RestorePatches(part, kEverywhere);
    }
    if (vma.is_data()) data_size_ -= part.length();
    if (changed.is_data()) data_size_ += part.length();
    vma.access = access;
    return {};
  });
  ReprotectPmas(range);
  return changed;
}

void MemoryManager::ReprotectPmas(AddrRange range) {
  sync::MutexLock active(active_mu_);
  if (!pmas_.Overlaps(range.start, range.end)) return;
  internal::MapBatch batch;
  AddrRange touched;
  for (VmaIterator v = vmas_.FirstEndingAfter(range.start); v != vmas_.end() && VmaMap::Start(v) < range.end; ++v) {
    const AddrRange part = range.Intersect({VmaMap::Start(v), VmaMap::End(v)});
    // Segments of pages may reach over VMAs.
    for (PmaIterator it = pmas_.Isolate(part.start, part.end); it != pmas_.end() && PmaMap::Start(it) < part.end;
         ++it) {
      Pma& pma = it->second.value;
      const AddrRange segment{PmaMap::Start(it), PmaMap::End(it)};
      const AccessType access = internal::PmaAccess(v->second.value.access, pma.writable);
      if (access == pma.access || !pma.mapped) {
        pma.access = access;
        if (pma.mapped) batch.Keep();
        continue;
      }
      pma.access = access;
      if (access.any()) {
        batch.Map(segment, pma);
      } else {
        batch.Unmap(segment);
      }
      if (touched.empty()) touched.start = segment.start;
      touched.end = segment.end;
    }
  }
  // Nothing may be left to the guest that it should not have. So if the changes are too many, or cannot be made, the
  // platform forgets everything there, and faults bring back what is used.
  if (batch.ops().size() > kMaxBatch || !Apply(batch)) {
    ForgetMapped(touched);
  } else {
    for (PmaIterator it = pmas_.FirstEndingAfter(touched.start); it != pmas_.end() && PmaMap::Start(it) < touched.end;
         ++it) {
      if (!it->second.value.access.any()) it->second.value.mapped = false;
    }
  }
  pmas_.MergeRange(range.start, range.end + 1);
}

}  // namespace redoubt::mm
