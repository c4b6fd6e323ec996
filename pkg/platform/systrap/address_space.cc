#include "pkg/platform/systrap/address_space.h"

#include <sys/mman.h>

#include "pkg/platform/systrap/control.h"

namespace redoubt::platform::systrap {
namespace {

// The border that keeps the stub out of the guest's hands.
Result<> CheckRange(Addr addr, uint64_t length) {
  AddrRange range;
  if (length == 0 || !IsPageAligned(addr) || !IsPageAligned(length) || !ToRange(addr, length, &range) ||
      range.end > kMaxUserAddress) {
    return Err(EINVAL);
  }
  return {};
}

}  // namespace

Result<> SystrapAddressSpace::MapFile(Addr addr, int fd, uint64_t offset, uint64_t length, AccessType access,
                                      bool populate) {
  if (!access.any()) return Unmap(addr, length);
  if (fd != memory_fd_ || !IsPageAligned(offset) || addr < kMinUserAddress) return Err(EINVAL);
  TRY(CheckRange(addr, length));
  uint64_t protection = PROT_READ | (access.write ? PROT_WRITE : 0) | (access.execute ? PROT_EXEC : 0);
  uint64_t flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0);
  CommandPage::Op op{.addr = addr, .length = length, .protection = protection, .flags = flags, .offset = offset};
  return process_->Map({&op, 1});
}

Result<> SystrapAddressSpace::Unmap(Addr addr, uint64_t length) {
  TRY(CheckRange(addr, length));
  CommandPage::Op op{.addr = addr, .length = length, .protection = 0, .flags = 0, .offset = 0};
  return process_->Map({&op, 1});
}

}  // namespace redoubt::platform::systrap
