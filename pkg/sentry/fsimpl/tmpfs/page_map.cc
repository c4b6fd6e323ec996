#include "pkg/sentry/fsimpl/tmpfs/page_map.h"

#include <algorithm>

namespace redoubt::tmpfs {

PageMap::Run PageMap::Find(uint64_t offset, uint64_t limit) const {
  const uint64_t start = PageRoundDown(offset);
  auto next = extents_.upper_bound(start);
  if (next != extents_.begin()) {
    auto it = std::prev(next);
    const uint64_t end = it->first + it->second.length;
    if (end > start) {
      return {.start = start,
              .end = std::min(end, limit),
              .present = true,
              .memory = it->second.memory + (start - it->first)};
    }
  }
  const uint64_t end = next == extents_.end() ? limit : std::min(next->first, limit);
  return {.start = start, .end = end, .present = false, .memory = 0};
}

void PageMap::Insert(uint64_t start, memmap::FileRange range) {
  uint64_t length = range.length();
  bytes_ += length;
  auto next = extents_.upper_bound(start);
  if (next != extents_.end() && next->first == start + length && next->second.memory == range.end) {
    length += next->second.length;
    next = extents_.erase(next);
  }
  if (next != extents_.begin()) {
    Extent& before = std::prev(next)->second;
    if (std::prev(next)->first + before.length == start && before.memory + before.length == range.start) {
      before.length += length;
      return;
    }
  }
  extents_.emplace_hint(next, start, Extent{length, range.start});
}

std::vector<memmap::FileRange> PageMap::Remove(uint64_t start, uint64_t end) {
  std::vector<memmap::FileRange> removed;
  auto it = extents_.upper_bound(start);
  if (it != extents_.begin()) --it;
  while (it != extents_.end() && it->first < end) {
    const uint64_t first = it->first, last = it->first + it->second.length, memory = it->second.memory;
    if (last <= start) {
      ++it;
      continue;
    }
    const uint64_t from = std::max(first, start), to = std::min(last, end);
    removed.push_back({memory + (from - first), memory + (to - first)});
    bytes_ -= to - from;
    it = extents_.erase(it);
    if (first < from) extents_.emplace(first, Extent{from - first, memory});
    if (to < last) it = extents_.emplace(to, Extent{last - to, memory + (to - first)}).first;
  }
  return removed;
}

uint64_t PageMap::NextData(uint64_t offset, uint64_t limit) const {
  while (offset < limit) {
    Run run = Find(offset, limit);
    if (run.present) return offset;
    offset = run.end;
  }
  return limit;
}

uint64_t PageMap::NextHole(uint64_t offset, uint64_t limit) const {
  while (offset < limit) {
    Run run = Find(offset, limit);
    if (!run.present) return offset;
    offset = run.end;
  }
  return limit;
}

}  // namespace redoubt::tmpfs
