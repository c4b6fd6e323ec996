// Changes to the guest's view of memory, collected so that the platform is asked once.
#ifndef REDOUBT_PKG_SENTRY_MM_MAP_BATCH_H_
#define REDOUBT_PKG_SENTRY_MM_MAP_BATCH_H_

#include <vector>

#include "pkg/hostarch/hostarch.h"
#include "pkg/platform/platform.h"
#include "pkg/sentry/mm/vma.h"

namespace redoubt::mm::internal {

// Filled in the order of addresses. What continues the change before it is one with that: a mapping if the pages lie
// side by side in the memory file too, an unmapping also across addresses where nothing is mapped.
class MapBatch final {
 public:
  void Map(AddrRange range, const Pma& pma);
  void Unmap(AddrRange range);
  // Something that stays mapped lies here.
  void Keep() { may_extend_ = false; }

  const std::vector<platform::MapOp>& ops() const { return ops_; }
  bool empty() const { return ops_.empty(); }

 private:
  std::vector<platform::MapOp> ops_;
  bool may_extend_ = false;
};

}  // namespace redoubt::mm::internal

#endif  // REDOUBT_PKG_SENTRY_MM_MAP_BATCH_H_
