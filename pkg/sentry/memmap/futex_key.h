// What identifies a futex: futex(2), "private" and "shared".
#ifndef REDOUBT_PKG_SENTRY_MEMMAP_FUTEX_KEY_H_
#define REDOUBT_PKG_SENTRY_MEMMAP_FUTEX_KEY_H_

#include <cstdint>

namespace redoubt::mm {

struct FutexKey {
  // Private: the MemoryManager and the address. Shared: null and the offset in the memory file, so that all who map the
  // page meet.
  const void* space = nullptr;
  uint64_t offset = 0;
  friend bool operator==(const FutexKey&, const FutexKey&) = default;
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MEMMAP_FUTEX_KEY_H_
