#include "pkg/sentry/pgalloc/free_ranges.h"

#include <iterator>

#include "pkg/log/log.h"

namespace redoubt::pgalloc {

void FreeRanges::Insert(uint64_t start, uint64_t end) {
  by_start_[start] = end;
  by_length_.emplace(end - start, start);
  total_ += end - start;
}

void FreeRanges::Erase(std::map<uint64_t, uint64_t>::iterator it) {
  by_length_.erase({it->second - it->first, it->first});
  total_ -= it->second - it->first;
  by_start_.erase(it);
}

void FreeRanges::Add(memmap::FileRange range) {
  uint64_t start = range.start;
  uint64_t end = range.end;
  auto after = by_start_.lower_bound(start);
  CHECK(after == by_start_.end() || after->first >= end, "a page was freed twice");
  if (after != by_start_.begin()) {
    auto before = std::prev(after);
    CHECK(before->second <= start, "a page was freed twice");
    if (before->second == start) {
      start = before->first;
      Erase(before);
    }
  }
  if (after != by_start_.end() && after->first == end) {
    end = after->second;
    Erase(after);
  }
  Insert(start, end);
}

std::optional<memmap::FileRange> FreeRanges::Take(uint64_t length) {
  auto best = by_length_.lower_bound({length, 0});
  if (best == by_length_.end()) return std::nullopt;
  auto it = by_start_.find(best->second);
  uint64_t start = it->first;
  uint64_t end = it->second;
  Erase(it);
  if (end - start > length) Insert(start + length, end);
  return memmap::FileRange{start, start + length};
}

std::optional<memmap::FileRange> FreeRanges::TakeAny() {
  if (by_start_.empty()) return std::nullopt;
  auto it = by_start_.begin();
  memmap::FileRange range{it->first, it->second};
  Erase(it);
  return range;
}

uint64_t FreeRanges::TailBefore(uint64_t end) const {
  if (by_start_.empty()) return 0;
  auto last = std::prev(by_start_.end());
  return last->second == end ? last->second - last->first : 0;
}

}  // namespace redoubt::pgalloc
