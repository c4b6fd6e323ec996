#include "pkg/sentry/syscalls/call_counts.h"

#include <string>
#include <utility>
#include <vector>

namespace redoubt::syscalls {

namespace {

constinit std::atomic<CallCounts*> all_counts{nullptr};

}  // namespace

constinit thread_local CallCounts* call_counts = nullptr;

void AddCallCounts() {
  auto* counts = new CallCounts;
  counts->next = all_counts.load(std::memory_order_relaxed);
  while (!all_counts.compare_exchange_weak(counts->next, counts, std::memory_order_release)) {
  }
  call_counts = counts;
}

std::vector<std::pair<std::string_view, uint64_t>> Calls() {
  std::vector<std::pair<std::string_view, uint64_t>> calls;
  for (uint64_t n = 0; n < kTableSize; n++) {
    uint64_t total = 0;
    for (const CallCounts* c = all_counts.load(std::memory_order_acquire); c != nullptr; c = c->next) {
      total += c->made[n].load(std::memory_order_relaxed);
    }
    if (total > 0) calls.emplace_back(Lookup(n).name, total);
  }
  return calls;
}

}  // namespace redoubt::syscalls
