#include "pkg/platform/ptrace/address_space.h"

#include <sys/mman.h>

#include "pkg/platform/guest_range.h"
#include "pkg/platform/ptrace/stub_amd64_unsafe.h"

namespace redoubt::platform::ptrace {

Result<> PtraceAddressSpace::MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access,
                                     bool populate) {
  if (!access.any()) return Unmap(addr, length);
  if (fd != memory_fd_ || !IsPageAligned(offset) || addr < kMinUserAddress) return Err(EINVAL);
  TRY(CheckGuestRange(addr, length, kMaxUserAddress));
  // Always readable, as on x86-64 without protection keys: an access to a mapped page then faults only if it writes or
  // fetches.
  int protection = PROT_READ | (access.write ? PROT_WRITE : 0) | (access.execute ? PROT_EXEC : 0);
  return process_->MapMemory(addr, offset, length, protection, populate);
}

Result<> PtraceAddressSpace::Unmap(Addr addr, uint64_t length) {
  TRY(CheckGuestRange(addr, length, kMaxUserAddress));
  return process_->UnmapMemory(addr, length);
}

}  // namespace redoubt::platform::ptrace
