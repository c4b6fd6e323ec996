// Which pages are written, and therefore copied, after a fork: likely again after the next one, in parent and child.
// They are copied at the fork, which costs a fifth of a microsecond each, and a fault some ten.
#ifndef REDOUBT_PKG_SENTRY_MM_HOT_PAGES_H_
#define REDOUBT_PKG_SENTRY_MM_HOT_PAGES_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::mm::internal {

// Of one parent; its children share it and add what they write. Thread-safe.
class HotPages final : public RefCounted {
 public:
  void Note(Addr page) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    if (pages_.size() < kMax && std::ranges::find(pages_, page) == pages_.end()) pages_.push_back(page);
  }
  // What to copy at a fork, in order. A program changes its ways, and what is no longer written is not to be copied for
  // ever, so now and then all is forgotten.
  std::vector<Addr> AtFork() EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    if (++forks_ % kForksUntilRelearned == 0) pages_.clear();
    std::ranges::sort(pages_);
    return pages_;
  }

 private:
  static constexpr size_t kMax = 16;
  static constexpr uint32_t kForksUntilRelearned = 32;

  sync::Mutex mu_{sync::Rank::kLeaf};
  std::vector<Addr> pages_ GUARDED_BY(mu_);
  uint32_t forks_ GUARDED_BY(mu_) = 0;
};

}  // namespace redoubt::mm::internal

#endif  // REDOUBT_PKG_SENTRY_MM_HOT_PAGES_H_
