#include "pkg/sentry/mm/map_batch.h"

namespace redoubt::mm::internal {

void MapBatch::Map(AddrRange range, const Pma& pma) {
  if (may_extend_) {
    platform::MapOp& last = ops_.back();
    if (last.access == pma.access && last.addr + last.length == range.start &&
        last.offset + last.length == pma.offset) {
      last.length += range.length();
      return;
    }
  }
  ops_.push_back({.addr = range.start, .length = range.length(), .offset = pma.offset, .access = pma.access});
  may_extend_ = true;
}

void MapBatch::Unmap(AddrRange range) {
  if (may_extend_ && !ops_.back().access.any()) {
    ops_.back().length = range.end - ops_.back().addr;
    return;
  }
  ops_.push_back({.addr = range.start, .length = range.length()});
  may_extend_ = true;
}

}  // namespace redoubt::mm::internal
