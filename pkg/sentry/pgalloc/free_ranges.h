// The unused parts of the memory file.
#ifndef REDOUBT_PKG_SENTRY_PGALLOC_FREE_RANGES_H_
#define REDOUBT_PKG_SENTRY_PGALLOC_FREE_RANGES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "pkg/sentry/memmap/memmap.h"

namespace redoubt::pgalloc {

// A set of disjoint ranges, touching ones joined, from which the best fit is taken. Not thread-safe.
class FreeRanges final {
 public:
  void Add(memmap::FileRange range);
  // The front of the smallest range that is long enough (among equals, the lowest).
  std::optional<memmap::FileRange> Take(uint64_t length);
  // The whole of the longest range, or nothing.
  std::optional<memmap::FileRange> TakeLongest();
  uint64_t total() const { return total_; }
  // The length of the range that ends at `end`, 0 if there is none: what need not be added when the file grows there.
  uint64_t TailBefore(uint64_t end) const;

 private:
  using Starts = std::map<uint64_t, uint64_t>;              // start -> end
  using Lengths = std::set<std::pair<uint64_t, uint64_t>>;  // (length, start)

  void Insert(uint64_t start, uint64_t end);
  void Erase(Starts::iterator it);
  // Gives a range other ends; it must keep its place in the order. Allocates nothing.
  void Change(Starts::iterator it, uint64_t start, uint64_t end);

  Starts by_start_;
  Lengths by_length_;
  uint64_t total_ = 0;
};

}  // namespace redoubt::pgalloc

#endif  // REDOUBT_PKG_SENTRY_PGALLOC_FREE_RANGES_H_
