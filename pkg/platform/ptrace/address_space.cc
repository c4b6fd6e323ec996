#include "pkg/platform/ptrace/address_space.h"

#include <sys/mman.h>

#include "pkg/platform/ptrace/stub_amd64_unsafe.h"

namespace redoubt::platform::ptrace {
namespace {

// The border that keeps the stub page out of the guest's hands.
Result<> CheckRange(Addr addr, uint64_t length) {
  AddrRange range;
  if (length == 0 || !IsPageAligned(addr) || !IsPageAligned(length) || !ToRange(addr, length, &range) ||
      range.end > kMaxUserAddress) {
    return Err(EINVAL);
  }
  return {};
}

}  // namespace

Result<> PtraceAddressSpace::MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access,
                                     bool populate) {
  if (!access.any()) return Unmap(addr, length);
  if (fd != memory_fd_ || !IsPageAligned(offset) || addr < kMinUserAddress) return Err(EINVAL);
  TRY(CheckRange(addr, length));
  // Always readable, as on x86-64 without protection keys: an access to a mapped page then faults only if it writes or
  // fetches.
  int protection = PROT_READ | (access.write ? PROT_WRITE : 0) | (access.execute ? PROT_EXEC : 0);
  return process_->MapMemory(addr, offset, length, protection, populate);
}

Result<> PtraceAddressSpace::Unmap(Addr addr, uint64_t length) {
  TRY(CheckRange(addr, length));
  return process_->UnmapMemory(addr, length);
}

}  // namespace redoubt::platform::ptrace
