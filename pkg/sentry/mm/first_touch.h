// Whether a small mapping, when it is made, is given its pages at once: most are touched right away, and then a fault
// is saved, which costs more than everything else about such a mapping. Some are not, by programs that do so again and
// again; so it is learned from mappings that are left to the guest's own faults.
#ifndef REDOUBT_PKG_SENTRY_MM_FIRST_TOUCH_H_
#define REDOUBT_PKG_SENTRY_MM_FIRST_TOUCH_H_

#include <algorithm>
#include <cstdint>

namespace redoubt::mm::internal {

// Not thread-safe.
class FirstTouch final {
 public:
  static constexpr uint64_t kMaxLength = uint64_t{64} << 10;

  // Of a new mapping of at most kMaxLength. Now and then the answer is no, to go on learning.
  bool Expected() { return score_ >= kSure && ++asked_ % kSample != 0; }
  // One had a fault; one went without ever having had one. Being wrong costs two calls to the platform, being right
  // saves a fault, about as much as one.
  void Touched() { score_ = std::min(score_ + 1, kMost); }
  void Untouched() { score_ = std::max(score_ - 2, 0); }

 private:
  static constexpr int kSure = 4;
  static constexpr int kMost = 6;
  static constexpr uint32_t kSample = 16;

  int score_ = 0;
  uint32_t asked_ = 0;
};

}  // namespace redoubt::mm::internal

#endif  // REDOUBT_PKG_SENTRY_MM_FIRST_TOUCH_H_
