// Which pages of a file are where in the memory file. Private to tmpfs.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_PAGE_MAP_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_PAGE_MAP_H_

#include <cstdint>
#include <map>
#include <vector>

#include "pkg/sentry/memmap/memmap.h"

namespace redoubt::tmpfs {

// A sparse map from page-aligned file offsets to page-aligned memory-file offsets, in extents: neighbours on both sides
// are one. Not thread-safe; counts no references.
class PageMap final {
 public:
  // What lies at `offset`: memory (file range of equal length) or, with `present` false, a hole. [start, end) contains
  // the offset and is cut to `limit`, all of them bytes; start is the page-aligned offset asked for, not the extent's.
  struct Run {
    uint64_t start, end;
    bool present;
    uint64_t memory;  // of start
    memmap::FileRange file_range() const { return {memory, memory + (end - start)}; }
  };
  // `offset` < `limit`.
  Run Find(uint64_t offset, uint64_t limit) const;
  // [start, start + range.length()) is a hole now.
  void Insert(uint64_t start, memmap::FileRange range);
  // Makes [start, end) a hole; returns what was there.
  std::vector<memmap::FileRange> Remove(uint64_t start, uint64_t end);

  uint64_t pages() const { return bytes_ / kPageSize; }
  // The first byte at or after `offset` that is in memory (or a hole): `limit` if there is none before it.
  uint64_t NextData(uint64_t offset, uint64_t limit) const;
  uint64_t NextHole(uint64_t offset, uint64_t limit) const;

 private:
  struct Extent {
    uint64_t length;
    uint64_t memory;
  };
  std::map<uint64_t, Extent> extents_;
  uint64_t bytes_ = 0;
};

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_PAGE_MAP_H_
