// The border that keeps a platform's own part of an address space out of the guest's hands.
#ifndef REDOUBT_PKG_PLATFORM_GUEST_RANGE_H_
#define REDOUBT_PKG_PLATFORM_GUEST_RANGE_H_

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"

namespace redoubt::platform {

// EINVAL unless [addr, addr + length) is whole pages, not empty, and below `max`.
inline Result<> CheckGuestRange(Addr addr, uint64_t length, Addr max) {
  AddrRange range;
  if (length == 0 || !IsPageAligned(addr) || !IsPageAligned(length) || !ToRange(addr, length, &range) ||
      range.end > max) {
    return Err(EINVAL);
  }
  return {};
}

}  // namespace redoubt::platform

#endif  // REDOUBT_PKG_PLATFORM_GUEST_RANGE_H_
