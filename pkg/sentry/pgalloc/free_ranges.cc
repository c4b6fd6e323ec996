#include "pkg/sentry/pgalloc/free_ranges.h"

#include <iterator>

#include "pkg/log/log.h"

namespace redoubt::pgalloc {

void FreeRanges::Insert(uint64_t start, uint64_t end) {
  by_start_[start] = end;
  by_length_.emplace(end - start, start);
  total_ += end - start;
}

void FreeRanges::Change(Starts::iterator it, uint64_t start, uint64_t end) {
  auto length = by_length_.extract({it->second - it->first, it->first});
  total_ += (end - start) - length.value().first;
  length.value() = {end - start, start};
  by_length_.insert(std::move(length));
  it->second = end;
  if (it->first == start) return;
  auto after = std::next(it);
  auto node = by_start_.extract(it);
  node.key() = start;
  by_start_.insert(after, std::move(node));
}

void FreeRanges::Erase(Starts::iterator it) {
  by_length_.erase({it->second - it->first, it->first});
  total_ -= it->second - it->first;
  by_start_.erase(it);
}

void FreeRanges::Add(memmap::FileRange range) {
  auto after = by_start_.lower_bound(range.start);
  CHECK(after == by_start_.end() || after->first >= range.end, "a page was freed twice");
  const bool joins_after = after != by_start_.end() && after->first == range.end;
  if (after != by_start_.begin()) {
    auto before = std::prev(after);
    CHECK(before->second <= range.start, "a page was freed twice");
    if (before->second == range.start) {
      uint64_t end = range.end;
      if (joins_after) {
        end = after->second;
        Erase(after);
      }
      Change(before, before->first, end);
      return;
    }
  }
  if (joins_after) {
    Change(after, range.start, after->second);
  } else {
    Insert(range.start, range.end);
  }
}

std::optional<memmap::FileRange> FreeRanges::Take(uint64_t length) {
  auto best = by_length_.lower_bound({length, 0});
  if (best == by_length_.end()) return std::nullopt;
  auto it = by_start_.find(best->second);
  uint64_t start = it->first;
  uint64_t end = it->second;
  if (end - start > length) {
    Change(it, start + length, end);
  } else {
    Erase(it);
  }
  return memmap::FileRange{start, start + length};
}

std::optional<memmap::FileRange> FreeRanges::TakeLongest() {
  if (by_length_.empty()) return std::nullopt;
  auto it = by_start_.find(std::prev(by_length_.end())->second);
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
