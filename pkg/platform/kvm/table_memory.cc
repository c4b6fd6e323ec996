#include "pkg/platform/kvm/table_memory.h"

#include <utility>

#include "pkg/heap/heap.h"
#include "pkg/log/rate_limit.h"

namespace redoubt::platform::kvm {
namespace {

using ring0::pagetables::PTEs;

constexpr uint32_t kPerChunk = kTableChunk / sizeof(PTEs);
// What a table costs the host: itself, and what KVM makes of it, shadow or second level.
constexpr size_t kTableCost = 2 * sizeof(PTEs);

}  // namespace

Result<std::unique_ptr<TableMemory>> TableMemory::Create(Vm& vm) {
  Mapping memory = TRY(Mapping::Create(kTableChunk * kMaxTableChunks, -1, 0));
  return std::unique_ptr<TableMemory>(new TableMemory(vm, std::move(memory)));
}

TableMemory::TableMemory(Vm& vm, Mapping memory) : vm_(vm), memory_(std::move(memory)), chunks_(kMaxTableChunks) {
  for (size_t i = kMaxTableChunks; i-- > 0;) free_.push_back(i);
}

Result<PTEs*> TableMemory::NewPTEs() {
  sync::MutexLock lock(mu_);
  if (current_ == kMaxTableChunks) {
    if (free_.empty()) return Err(ENOMEM);
    const size_t chunk = free_.back();
    TRY(vm_.AddSlot(kFirstTableSlot + static_cast<uint32_t>(chunk), kTablesPhysical + chunk * kTableChunk,
                    memory_.start() + chunk * kTableChunk, kTableChunk));
    free_.pop_back();
    current_ = chunk;
  }
  Chunk& chunk = chunks_[current_];
  // SAFETY: the mapping is page-aligned and zero where nothing was given out, and PTEs are plain numbers.
  PTEs* table = reinterpret_cast<PTEs*>(memory_.start() + current_ * kTableChunk) + chunk.used;
  chunk.used++;
  chunk.live++;
  heap::Allocated(kTableCost);
  if (chunk.used == kPerChunk) current_ = kMaxTableChunks;
  return table;
}

void TableMemory::FreePTEs(PTEs* table) {
  sync::MutexLock lock(mu_);
  const size_t index = static_cast<size_t>(reinterpret_cast<std::byte*>(table) - memory_.start()) / kTableChunk;
  Chunk& chunk = chunks_[index];
  CHECK(chunk.live > 0, "a page table was freed twice");
  if (--chunk.live == 0 && index != current_) Recycle(index);
}

void TableMemory::Recycle(size_t index) {
  if (Result<> removed = vm_.RemoveSlot(kFirstTableSlot + static_cast<uint32_t>(index)); !removed) {
    // It stays out of use.
    LOG_ERROR_LIMITED("kvm: cannot remove a memory slot: {}", removed.error().name());
    return;
  }
  memory_.Forget(index * kTableChunk, kTableChunk);
  heap::Freed(chunks_[index].used * kTableCost);
  chunks_[index] = {};
  free_.push_back(index);
}

uint64_t TableMemory::PhysicalFor(const PTEs* table) {
  return kTablesPhysical + static_cast<uint64_t>(reinterpret_cast<const std::byte*>(table) - memory_.start());
}

PTEs* TableMemory::LookupPTEs(uint64_t physical) {
  CHECK(physical >= kTablesPhysical && physical - kTablesPhysical < memory_.size(), "not a page table");
  return reinterpret_cast<PTEs*>(memory_.start() + (physical - kTablesPhysical));
}

size_t TableMemory::chunks_in_use() {
  sync::MutexLock lock(mu_);
  return kMaxTableChunks - free_.size();
}

}  // namespace redoubt::platform::kvm
