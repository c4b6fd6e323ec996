#include "pkg/heap/heap.h"

#include <sched.h>

#include <algorithm>

namespace redoubt::heap {
namespace {

// Each processor counts for itself; what one allocates another may free, so that a count may be negative.
constexpr int kShards = 16;
constexpr int kGrowthShift = 20;
struct alignas(64) Shard {
  std::atomic<int64_t> bytes{0};
};
constinit Shard shards[kShards];
constinit std::atomic<bool> grown{false};

std::atomic<int64_t>& Mine() { return shards[static_cast<unsigned>(sched_getcpu()) % kShards].bytes; }

}  // namespace

uint64_t Used() {
  int64_t sum = 0;
  for (const Shard& s : shards) sum += s.bytes.load(std::memory_order_relaxed);
  return static_cast<uint64_t>(std::max<int64_t>(sum, 0));
}

bool HasGrown() { return grown.load(std::memory_order_relaxed) && grown.exchange(false, std::memory_order_relaxed); }

void Allocated(size_t bytes) {
  const int64_t before = Mine().fetch_add(static_cast<int64_t>(bytes), std::memory_order_relaxed);
  if ((before >> kGrowthShift) != (before + static_cast<int64_t>(bytes)) >> kGrowthShift) {
    grown.store(true, std::memory_order_relaxed);
  }
}

void Freed(size_t bytes) { Mine().fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed); }

}  // namespace redoubt::heap
