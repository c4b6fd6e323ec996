// The memory file as the virtual machine's memory.
//
// KVM keeps several bytes for each page of a slot, so the file comes in chunks, each a slot from when a guest first
// maps something of it. The mappings here are for KVM alone; the Sentry has its own.
#ifndef REDOUBT_PKG_PLATFORM_KVM_FILE_MEMORY_H_
#define REDOUBT_PKG_PLATFORM_KVM_FILE_MEMORY_H_

#include <atomic>
#include <memory>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/platform/kvm/vm.h"
#include "pkg/sync/mutex.h"

namespace redoubt::platform::kvm {

// Thread-safe.
class FileMemory final {
 public:
  // `fd` is borrowed.
  FileMemory(Vm& vm, int fd);

  // Makes [offset, offset + length) of the file part of the machine; its guest-physical address. EINVAL beyond what the
  // machine can have; ENOMEM.
  Result<uint64_t> Add(uint64_t offset, uint64_t length) EXCLUDES(mu_);
  // Guests that were mapped to this have lost it, or the right to write or execute it, in their page tables: makes KVM
  // and the processors look at those again. Any range that Add has made; may cross chunks.
  void Forget(uint64_t physical, uint64_t length);
  // The Sentry's view of one page of it, for looks at a guest's instructions.
  const std::byte* At(uint64_t physical) const;

 private:
  Vm& vm_;
  const int fd_;
  uint64_t end_;  // of the file's guest-physical addresses
  // Null where there is no slot. Set once, under the lock.
  std::unique_ptr<std::atomic<Mapping*>[]> chunks_;
  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<std::unique_ptr<Mapping>> mappings_ GUARDED_BY(mu_);
};

}  // namespace redoubt::platform::kvm

#endif  // REDOUBT_PKG_PLATFORM_KVM_FILE_MEMORY_H_
