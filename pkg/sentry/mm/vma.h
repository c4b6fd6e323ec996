// What an address space's two interval maps hold: mappings (VMAs) and the pages behind them.
#ifndef REDOUBT_PKG_SENTRY_MM_VMA_H_
#define REDOUBT_PKG_SENTRY_MM_VMA_H_

#include <cstdint>
#include <string>

#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"
#include "pkg/segment/interval_map.h"
#include "pkg/sentry/memmap/memmap.h"

namespace redoubt::mm::internal {

// A mapping: what mmap(2) was asked for. Linux's vm_area_struct. Two neighbours that differ in nothing are one.
struct Vma {
  AccessType access;
  AccessType max_access;
  bool shared = false;
  bool grows_down = false;
  bool locked = false;
  bool no_reserve = false;
  bool dont_fork = false;                // MADV_DONTFORK
  bool wipe_on_fork = false;             // MADV_WIPEONFORK
  Addr hidden = 0;                       // where the hidden range starts that this is (MapHidden); 0: the guest's own
  memmap::Mappable* mappable = nullptr;  // null: private anonymous
  RefPtr<memmap::MappingIdentity> identity;
  uint64_t offset = 0;  // into the mappable
  std::string name;

  Vma After(uint64_t delta) const {
    Vma v = *this;
    if (v.mappable != nullptr) v.offset += delta;
    return v;
  }
  bool Continues(const Vma& p, uint64_t length) const {
    return access == p.access && max_access == p.max_access && shared == p.shared && grows_down == p.grows_down &&
           locked == p.locked && no_reserve == p.no_reserve && dont_fork == p.dont_fork &&
           wipe_on_fork == p.wipe_on_fork && hidden == p.hidden && mappable == p.mappable && identity == p.identity &&
           name == p.name && (mappable == nullptr || offset == p.offset + length);
  }
  // Counted against RLIMIT_DATA, as Linux's is_data_mapping.
  bool is_data() const { return access.write && !shared && !grows_down; }  // hidden ones are not writable
};

// Pages of the memory file that are present at guest addresses; one reference on each is held. Linux's page-table
// entries.
struct Pma {
  uint64_t offset = 0;  // in the memory file
  // What the guest may do to the pages now: the VMA's access, less writing where that needs a copy or the Mappable's
  // consent first.
  AccessType access;
  // The pages may be written where they are (the VMA's protection apart).
  bool writable = false;
  // The pages are this mapping's own, not a Mappable's: anonymous memory or copies. Shared with other address spaces
  // after fork, until written.
  bool private_copy = false;
  bool shared = false;  // the VMA is
  // The platform maps them with `access`.
  bool mapped = false;

  Pma After(uint64_t delta) const {
    Pma p = *this;
    p.offset += delta;
    return p;
  }
  bool Continues(const Pma& p, uint64_t length) const {
    return access == p.access && writable == p.writable && private_copy == p.private_copy && shared == p.shared &&
           mapped == p.mapped && offset == p.offset + length;
  }
};

using VmaMap = segment::IntervalMap<Vma>;
using PmaMap = segment::IntervalMap<Pma>;

// On x86 whatever can be written or executed can be read.
constexpr AccessType Effective(AccessType a) {
  if (a.write || a.execute) a.read = true;
  return a;
}
constexpr AccessType PmaAccess(AccessType vma_access, bool writable) {
  AccessType a = Effective(vma_access);
  if (!writable) a.write = false;
  return a;
}

}  // namespace redoubt::mm::internal

#endif  // REDOUBT_PKG_SENTRY_MM_VMA_H_
