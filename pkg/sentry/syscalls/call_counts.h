// How often each call was made. Private to this library.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_CALL_COUNTS_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_CALL_COUNTS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "pkg/sentry/syscalls/table.h"

namespace redoubt::syscalls {

// Counts of one OS thread, which alone writes them, with plain instructions; who reads them adds up all threads'. Lives
// for ever: a thread's calls stay made when it ends.
struct CallCounts {
  std::array<std::atomic<uint64_t>, kTableSize> made{};
  CallCounts* next = nullptr;
};

// Null before the thread's first call.
extern constinit thread_local CallCounts* call_counts;
// The first call of a thread.
[[gnu::cold, gnu::noinline]] void AddCallCounts();

inline void CountCall(uint64_t number) {
  if (call_counts == nullptr) [[unlikely]]
    AddCallCounts();
  std::atomic<uint64_t>& count = call_counts->made[number];
  count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_CALL_COUNTS_H_
