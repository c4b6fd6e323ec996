#include "pkg/platform/kvm/file_memory.h"

#include <algorithm>
#include <utility>

#include "pkg/hostarch/hostarch.h"
#include "pkg/log/log.h"

namespace redoubt::platform::kvm {

FileMemory::FileMemory(Vm& vm, int fd)
    : vm_(vm),
      fd_(fd),
      end_(std::min(vm.physical_end(), kFilePhysical + kFileChunk * kMaxFileChunks)),
      chunks_(new std::atomic<Mapping*>[kMaxFileChunks]()) {}

Result<uint64_t> FileMemory::Add(uint64_t offset, uint64_t length) {
  if (length == 0 || end_ <= kFilePhysical || offset >= end_ - kFilePhysical ||
      length > end_ - kFilePhysical - offset) {
    return Err(EINVAL);
  }
  for (uint64_t i = offset / kFileChunk; i <= (offset + length - 1) / kFileChunk; i++) {
    if (chunks_[i].load(std::memory_order_acquire) != nullptr) continue;
    sync::MutexLock lock(mu_);
    if (chunks_[i].load(std::memory_order_relaxed) != nullptr) continue;
    auto mapping = std::make_unique<Mapping>(TRY(Mapping::Create(kFileChunk, fd_, i * kFileChunk)));
    TRY(vm_.AddSlot(kFirstFileSlot + static_cast<uint32_t>(i), kFilePhysical + i * kFileChunk, mapping->start(),
                    kFileChunk));
    chunks_[i].store(mapping.get(), std::memory_order_release);
    mappings_.push_back(std::move(mapping));
  }
  return kFilePhysical + offset;
}

void FileMemory::Forget(uint64_t physical, uint64_t length) {
  CHECK(physical >= kFilePhysical, "not of the memory file");
  for (uint64_t offset = physical - kFilePhysical, end = offset + length; offset < end;) {
    const uint64_t i = offset / kFileChunk;
    const uint64_t next = std::min(end, (i + 1) * kFileChunk);
    Mapping* mapping = chunks_[i].load(std::memory_order_acquire);
    CHECK(mapping != nullptr, "never mapped");
    mapping->Forget(offset - i * kFileChunk, next - offset);
    offset = next;
  }
}

const std::byte* FileMemory::At(uint64_t physical) const {
  CHECK(physical >= kFilePhysical, "not of the memory file");
  const uint64_t offset = physical - kFilePhysical;
  Mapping* mapping = chunks_[offset / kFileChunk].load(std::memory_order_acquire);
  CHECK(mapping != nullptr, "never mapped");
  return mapping->start() + offset % kFileChunk;
}

}  // namespace redoubt::platform::kvm
