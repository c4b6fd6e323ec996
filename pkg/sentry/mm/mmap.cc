// mmap, munmap, brk: where mappings go, and how they come and leave.
#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"
#include "pkg/sentry/mm/shared_anonymous.h"

namespace redoubt::mm {

using internal::FirstTouch;
using internal::Vma;
using internal::VmaMap;

namespace {

// proc(5), max_map_count.
size_t MaxVmas() { return static_cast<size_t>(limits::System::Get().max_map_count.load(std::memory_order_relaxed)); }

// Kept free below a stack so that it can grow (Linux's stack_guard_gap).
constexpr uint64_t kStackGuard = 256 * kPageSize;
// Where MAP_32BIT puts things: mmap(2).
constexpr AddrRange kArea32Bit{0x4000'0000, 0x8000'0000};

// Where something that is not a stack must end below this VMA.
Addr LowestUse(VmaMap::iterator it) {
  Addr start = VmaMap::Start(it);
  if (!it->second.value.grows_down) return start;
  return start > kStackGuard ? start - kStackGuard : 0;
}

}  // namespace

Result<> MemoryManager::CheckRange(Addr addr, uint64_t length, int overflow_error, AddrRange* out) const {
  if (!IsPageAligned(addr)) return Err(EINVAL);
  uint64_t rounded;
  if (!PageRoundUp(length, &rounded) || !ToRange(addr, rounded, out)) return Err(overflow_error);
  return {};
}

bool MemoryManager::IsFree(AddrRange range) {
  auto it = vmas_.FirstEndingAfter(range.start);
  return it == vmas_.end() || LowestUse(it) >= range.end;
}

Result<Addr> MemoryManager::FindGap(uint64_t length) {
  // As FindGapBelow(platform_.min_user_address(), mmap_top_, length), without looking again at gaps that are too short.
  if (length <= longest_gap_ || gap_top_ == 0) {
    gap_top_ = mmap_top_;
    longest_gap_ = 0;
  }
  const Addr low = platform_.min_user_address();
  auto it = vmas_.FirstEndingAfter(gap_top_);
  if (it != vmas_.end()) gap_top_ = std::min(gap_top_, LowestUse(it));
  for (;;) {
    const bool last = it == vmas_.begin();
    if (!last) --it;
    const Addr bottom = last ? low : std::max(low, VmaMap::End(it));
    if (gap_top_ >= bottom) {
      if (gap_top_ - bottom >= length) return gap_top_ - length;
      longest_gap_ = std::max(longest_gap_, gap_top_ - bottom);
    }
    if (last || VmaMap::Start(it) <= low) return Err(ENOMEM);
    gap_top_ = std::min(gap_top_, LowestUse(it));
  }
}

void MemoryManager::GapHasGrown(AddrRange range) {
  // Not yet known, or the search begins at its top or above anyway.
  if (gap_top_ == 0 || range.end <= gap_top_) return;
  auto above = vmas_.FirstEndingAfter(range.end);
  gap_top_ = above == vmas_.end() ? mmap_top_ : std::min(mmap_top_, std::max(gap_top_, VmaMap::Start(above)));
}

Result<Addr> MemoryManager::FindGapBelow(Addr low, Addr high, uint64_t length) {
  // From the top down, as Linux does, so that neighbours in time are neighbours in space.
  auto it = vmas_.FirstEndingAfter(high);
  if (it != vmas_.end()) high = std::min(high, LowestUse(it));
  for (;;) {
    bool last = it == vmas_.begin();
    if (!last) --it;
    Addr bottom = last ? low : std::max(low, VmaMap::End(it));
    if (high >= bottom && high - bottom >= length) return high - length;
    if (last || VmaMap::Start(it) <= low) return Err(ENOMEM);
    high = std::min(high, LowestUse(it));
  }
}

Result<Addr> MemoryManager::ChooseAddress(const MMapOptions& options, uint64_t length) {
  const Addr min = platform_.min_user_address();
  const Addr max = platform_.max_user_address();
  if (length > max - min) return Err(ENOMEM);
  if (options.fixed || options.no_replace) {
    AddrRange range;
    if (!IsPageAligned(options.addr)) return Err(EINVAL);
    if (!ToRange(options.addr, length, &range) || range.end > max) return Err(ENOMEM);
    if (range.start < min) return Err(EPERM);
    if (options.no_replace && vmas_.Overlaps(range.start, range.end)) return Err(EEXIST);
    return options.addr;
  }
  uint64_t hint;
  if (options.addr != 0 && PageRoundUp(options.addr, &hint)) {
    AddrRange range;
    hint = std::max(hint, min);
    if (ToRange(hint, length, &range) && range.end <= max && IsFree(range)) return hint;
  }
  if (options.map_32bit) return FindGapBelow(kArea32Bit.start, kArea32Bit.end, length);
  if (options.grows_down) {
    if (Result<Addr> r = FindGapBelow(mmap_top_, max, length); r) return r;
  }
  if (Result<Addr> r = FindGap(length); r) return r;
  return FindGapBelow(min, max, length);
}

Result<> MemoryManager::CheckLimits(uint64_t added, bool data, AddrRange replaced) {
  uint64_t gone = 0;
  uint64_t gone_data = 0;
  for (auto it = vmas_.FirstEndingAfter(replaced.start); it != vmas_.end() && VmaMap::Start(it) < replaced.end; ++it) {
    if (it->second.value.hidden != 0) continue;
    uint64_t n = replaced.Intersect({VmaMap::Start(it), VmaMap::End(it)}).length();
    gone += n;
    if (it->second.value.is_data()) gone_data += n;
  }
  uint64_t size = virtual_size_ - gone;
  if (size + added > limits_.address_space) return Err(ENOMEM);
  if (data && data_size_ - gone_data + added > limits_.data) return Err(ENOMEM);
  return {};
}

void MemoryManager::InsertVma(AddrRange range, Vma vma) {
  CountVma(range, vma);
  vmas_.Insert(range.start, range.end, std::move(vma));
}

void MemoryManager::CountVma(AddrRange range, const Vma& vma) {
  if (vma.hidden != 0) {
    hidden_ranges_++;
    hidden_size_ += range.length();
  } else {
    virtual_size_ += range.length();
  }
  if (vma.is_data()) data_size_ += range.length();
}

Result<Addr> MemoryManager::MMap(MMapOptions options) {
  fiber::MutexLock lock(mapping_mu_);
  Addr addr = TRY(MMapLocked(options));
  if (options.populate || options.locked) {
    Populate({addr, addr + MustPageRoundUp(options.length)}, options.access.write && !options.shared);
  } else if (options.length <= FirstTouch::kMaxLength) {
    ExpectTouch({addr, addr + MustPageRoundUp(options.length)}, options);
  }
  return addr;
}

void MemoryManager::ExpectTouch(AddrRange range, const MMapOptions& options) {
  if (options.mappable != nullptr || options.shared || !options.access.write || options.no_reserve) return;
  sync::MutexLock active(active_mu_);
  // Without memory the fault will tell.
  if (guest_runs_ && first_touch_.Expected()) (void)AddPages(range, options.access);
}

Result<Addr> MemoryManager::MMapLocked(MMapOptions& options) {
  if (torn_down_) return Err(ENOMEM);
  uint64_t length;
  if (options.length == 0) return Err(EINVAL);
  if (!PageRoundUp(options.length, &length)) return Err(ENOMEM);
  if (!IsPageAligned(options.offset)) return Err(EINVAL);
  if (options.offset + length < options.offset) return Err(EOVERFLOW);
  if (!options.max_access.Allows(options.access)) return Err(EACCES);
  // Two more than needed: what the new one splits.
  if (VisibleVmas() + 2 > MaxVmas()) return Err(ENOMEM);

  Addr addr = TRY(ChooseAddress(options, length));
  AddrRange range{addr, addr + length};
  Vma vma{.access = options.access,
          .max_access = options.max_access,
          .shared = options.shared,
          .grows_down = options.grows_down,
          .locked = options.locked || lock_future_,
          .no_reserve = options.no_reserve,
          .mappable = options.mappable,
          .identity = options.identity,
          .offset = options.offset,
          .name = options.name};
  TRY(CheckLimits(length, vma.is_data(), range));
  if (vma.shared && vma.mappable == nullptr) {
    RefPtr<SharedAnonymous> memory = MakeRef<SharedAnonymous>(memory_file_, length);
    vma.mappable = memory.get();
    vma.identity = memory;
    vma.offset = 0;
  }
  DisplaceHidden(range);
  TRY(UnmapLocked(range));
  if (vma.mappable != nullptr) {
    TRY(vma.mappable->AddMapping(*this, range, vma.offset, vma.shared && vma.access.write));
  }
  InsertVma(range, std::move(vma));
  return addr;
}

Result<> MemoryManager::UnmapLocked(AddrRange range) {
  while (hidden_ranges_ > 0) {
    auto it = vmas_.FirstEndingAfter(range.start);
    while (it != vmas_.end() && VmaMap::Start(it) < range.end && it->second.value.hidden == 0) ++it;
    if (it == vmas_.end() || VmaMap::Start(it) >= range.end) break;
    AddrRange hidden{VmaMap::Start(it), VmaMap::End(it)};
    if (hidden.start > range.start) TRY(UnmapVisible({range.start, hidden.start}));
    if (hidden.end >= range.end) return {};
    range.start = hidden.end;
  }
  return UnmapVisible(range);
}

Result<> MemoryManager::UnmapVisible(AddrRange range) {
  auto first = vmas_.FirstEndingAfter(range.start);
  if (first == vmas_.end() || VmaMap::Start(first) >= range.end) return {};
  if (VisibleVmas() + 1 > MaxVmas() && VmaMap::Start(first) < range.start && VmaMap::End(first) > range.end)
    return Err(ENOMEM);
  const Vma& vma = first->second.value;
  if (range.length() <= FirstTouch::kMaxLength && vma.mappable == nullptr && vma.access.write && !vma.no_reserve) {
    sync::MutexLock active(active_mu_);
    if (!pmas_.Overlaps(range.start, range.end)) first_touch_.Untouched();
  }
  DropPages(range);
  uint64_t data = 0;
  vmas_.Remove(range.start, range.end, [&](Addr start, Addr end, const Vma& vma) {
    virtual_size_ -= end - start;
    if (vma.is_data()) data += end - start;
    if (vma.mappable == nullptr) return;
    vma.mappable->RemoveMapping(*this, {start, end}, vma.offset, vma.shared && vma.access.write);
  });
  data_size_ -= data;
  GapHasGrown(range);
  return {};
}

Result<> MemoryManager::MUnmap(Addr addr, uint64_t length) {
  AddrRange range;
  TRY(CheckRange(addr, length, EINVAL, &range));
  if (range.empty() || range.end > platform_.max_user_address()) return Err(EINVAL);
  fiber::MutexLock lock(mapping_mu_);
  return UnmapLocked(range);
}

void MemoryManager::SetBrkStart(Addr addr) {
  fiber::MutexLock lock(mapping_mu_);
  brk_ = {addr, addr};
}

Addr MemoryManager::Brk(Addr addr) {
  fiber::MutexLock lock(mapping_mu_);
  if (addr < brk_.start || addr > platform_.max_user_address()) return brk_.end;
  // RLIMIT_DATA holds for the heap's own size as well: brk(2).
  if (addr - brk_.start > limits_.data) return brk_.end;
  Addr old_end = MustPageRoundUp(brk_.end);
  Addr new_end = MustPageRoundUp(addr);
  if (new_end < old_end) {
    if (!UnmapLocked({new_end, old_end})) return brk_.end;
  } else if (new_end > old_end) {
    DisplaceHidden({old_end, new_end});
    if (!IsFree({old_end, new_end})) return brk_.end;
    MMapOptions options{
        .addr = old_end, .length = new_end - old_end, .fixed = true, .access = kReadWrite, .name = "[heap]"};
    if (!MMapLocked(options)) return brk_.end;
    if (lock_future_) Populate({old_end, new_end}, true);
  }
  brk_.end = addr;
  return addr;
}

}  // namespace redoubt::mm
