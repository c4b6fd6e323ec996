// mprotect.
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

namespace redoubt::mm {

using internal::Pma;
using internal::PmaMap;
using internal::Vma;
using internal::VmaMap;

namespace {

// With more segments of pages than this, the platform forgets the range at once, and faults bring back what is used.
constexpr int kMaxRemaps = 8;

}  // namespace

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
  return ChangeVmas(range, [&](Vma& vma, AddrRange part) REQUIRES(mapping_mu_) -> Result<> {
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
    ReprotectPmas(part, vma);
    return {};
  });
}

void MemoryManager::ReprotectPmas(AddrRange range, const Vma& vma) {
  sync::MutexLock active(active_mu_);
  PmaIterator first = pmas_.Isolate(range.start, range.end);
  auto in_range = [&](PmaIterator it)
                      REQUIRES(active_mu_) { return it != pmas_.end() && PmaMap::Start(it) < range.end; };
  int changes = 0;
  bool mapped = false;
  for (PmaIterator it = first; in_range(it); ++it) {
    mapped |= it->second.value.mapped;
    changes += it->second.value.access != internal::PmaAccess(vma.access, it->second.value.writable);
  }
  // Nothing may be left to the guest that it should not have, so where one call does not work, the other must.
  bool forget = mapped && changes > 0 && (changes > kMaxRemaps || !vma.access.any());
  if (forget && !UnmapFromGuest(range)) forget = false;
  for (PmaIterator it = first; in_range(it); ++it) {
    Pma& pma = it->second.value;
    AccessType access = internal::PmaAccess(vma.access, pma.writable);
    bool same = access == pma.access;
    pma.access = access;
    if (forget) pma.mapped = false;
    if (same || !pma.mapped) continue;
    AddrRange segment{PmaMap::Start(it), PmaMap::End(it)};
    if (pma.access.any() && MapSegment(segment, pma)) continue;
    UnmapFromGuest(segment);
    pma.mapped = false;
  }
  pmas_.MergeRange(range.start, range.end + 1);
}

}  // namespace redoubt::mm
