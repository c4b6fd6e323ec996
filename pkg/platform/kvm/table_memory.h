// Memory for guests' page tables, in the virtual machine.
//
// Without hardware virtualization KVM shadows guest page tables, and follows only those changes that are made by code
// in the guest. Page tables here are written from outside. That is right for as long as a page is the same table of the
// same address space: an entry that comes is looked up when it is first needed, one that goes is taken care of by who
// changes it (file_memory.h). But a page that becomes another table must not be found in what KVM has shadowed. So no
// page is used twice until its whole chunk is free, and then the chunk's slot is removed and added again, which drops
// all shadows of it.
#ifndef REDOUBT_PKG_PLATFORM_KVM_TABLE_MEMORY_H_
#define REDOUBT_PKG_PLATFORM_KVM_TABLE_MEMORY_H_

#include <memory>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/platform/kvm/vm.h"
#include "pkg/ring0/pagetables/pagetables.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::kvm {

// Thread-safe. At most kMaxTableChunks * kTableChunk bytes, then ENOMEM.
class TableMemory final : public ring0::pagetables::Allocator {
 public:
  static Result<std::unique_ptr<TableMemory>> Create(Vm& vm);

  Result<ring0::pagetables::PTEs*> NewPTEs() override EXCLUDES(mu_);
  void FreePTEs(ring0::pagetables::PTEs* table) override EXCLUDES(mu_);
  uint64_t PhysicalFor(const ring0::pagetables::PTEs* table) override;
  ring0::pagetables::PTEs* LookupPTEs(uint64_t physical) override;

  // Chunks that have a slot.
  size_t chunks_in_use() EXCLUDES(mu_);

 private:
  TableMemory(Vm& vm, Mapping memory);
  struct Chunk {
    uint32_t used = 0;  // pages given out since the slot was added
    uint32_t live = 0;  // of those, not freed
  };
  void Recycle(size_t chunk) REQUIRES(mu_);

  Vm& vm_;
  const Mapping memory_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<Chunk> chunks_ GUARDED_BY(mu_);
  std::vector<size_t> free_ GUARDED_BY(mu_);  // chunks without a slot; the last is taken first
  size_t current_ GUARDED_BY(mu_) = kMaxTableChunks;
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_TABLE_MEMORY_H_
