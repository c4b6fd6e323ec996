// Hidden memory, and patches of guest text that lead there.
#include "pkg/sentry/mm/text_patch.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "pkg/log/log.h"
#include "pkg/safecopy/safecopy_unsafe.h"
#include "pkg/sentry/mm/memory_manager.h"
#include "pkg/sentry/mm/pages.h"

namespace redoubt::mm {

using internal::Pma;
using internal::Vma;
using internal::VmaMap;

namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Free addresses, and how many of them at either end a hidden range should leave to what is likely to grow there.
struct Gap {
  Addr low;
  Addr high;
  bool guest_below;  // what ends at `low` is the guest's, not hidden memory or the end of the address space
  bool guest_above;
};

uint64_t Minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

}  // namespace

Result<Addr> MemoryManager::FindHiddenGap(Addr near, uint64_t length, uint64_t reach) {
  const AddrRange within{std::max(platform_.min_user_address(), Minus(near, reach)),
                         std::min(platform_.max_user_address(), near + reach < near ? ~uint64_t{0} : near + reach)};
  // The heap grows from its end even while it is empty.
  const Addr heap_end = MustPageRoundUp(brk_.end);
  std::vector<Gap> gaps;
  Addr low = platform_.min_user_address();
  bool guest_below = false;
  auto add = [&](Addr high, bool guest_above) REQUIRES(mapping_mu_) {
    Gap gap{low, high, guest_below, guest_above};
    if (brk_.start != 0 && heap_end >= low && heap_end < high) {
      if (heap_end > brk_.start || heap_end == low) {
        gap.low = heap_end;
        gap.guest_below = true;
      } else {
        // An empty heap in the middle: below it nothing grows.
        gaps.push_back({low, heap_end, guest_below, false});
        gap = {heap_end, high, true, guest_above};
      }
    }
    if (gap.low < gap.high) gaps.push_back(gap);
  };
  for (auto it = vmas_.begin(); it != vmas_.end(); ++it) {
    const Vma& vma = it->second.value;
    Addr high = VmaMap::Start(it);
    // A stack may grow to its limit.
    if (vma.grows_down) high = std::max(low, Minus(VmaMap::End(it), std::max(limits_.stack, VmaMap::Length(it))));
    add(high, vma.hidden == 0);
    low = VmaMap::End(it);
    guest_below = vma.hidden == 0;
  }
  add(platform_.max_user_address(), false);

  // Below `near` first: what lies above a program is its heap.
  struct Try {
    bool below;
    uint64_t margin;
  };
  for (Try t : {Try{true, 64 * kMiB},
                {true, kMiB},
                {false, 1024 * kMiB},
                {false, 64 * kMiB},
                {false, kMiB},
                {true, 0},
                {false, 0}}) {
    Addr best = 0;
    for (const Gap& gap : gaps) {
      if ((gap.low < near) != t.below) continue;
      Addr bottom = std::max(within.start, gap.low + (gap.guest_below ? t.margin : 0));
      Addr top = std::min(within.end, Minus(gap.high, gap.guest_above ? t.margin : 0));
      if (top < bottom || top - bottom < length) continue;
      // The gap closest to `near`, and in it the place closest to that.
      if (!t.below) return bottom;
      best = top - length;
    }
    if (best != 0) return best;
  }
  return Err(ENOMEM);
}

Result<AddrRange> MemoryManager::MapHidden(Addr near, uint64_t length, uint64_t reach) {
  if (length == 0 || !IsPageAligned(length)) return Err(EINVAL);
  fiber::MutexLock lock(mapping_mu_);
  if (torn_down_) return Err(ENOMEM);
  Addr start = TRY(FindHiddenGap(near, length, reach));
  memmap::FileRange pages = TRY(memory_file_.Allocate(length));
  constexpr AccessType kReadExecute{.read = true, .execute = true};
  AddrRange range{start, start + length};
  InsertVma(range, Vma{.access = kReadExecute, .max_access = kReadExecute, .hidden = start});
  sync::MutexLock active(active_mu_);
  // If the platform cannot map it now, a fault will try again.
  (void)InstallPages(range, Pma{.offset = pages.start, .access = kReadExecute, .private_copy = true});
  return range;
}

Result<> MemoryManager::WriteHidden(Addr addr, std::span<const std::byte> bytes) {
  AddrRange range;
  if (!ToRange(addr, bytes.size(), &range)) return Err(EFAULT);
  fiber::MutexLock lock(mapping_mu_);
  for (Addr at = range.start; at < range.end;) {
    VmaIterator it = vmas_.Find(at);
    if (it == vmas_.end() || it->second.value.hidden == 0) return Err(EFAULT);
    at = VmaMap::End(it);
  }
  sync::MutexLock active(active_mu_);
  while (!bytes.empty()) {
    const Addr page = PageRoundDown(addr);
    const uint64_t n = std::min<uint64_t>(bytes.size(), page + kPageSize - addr);
    PmaIterator it = pmas_.Find(page);
    CHECK(it != pmas_.end(), "hidden memory without pages");
    const uint64_t offset = it->second.value.After(page - internal::PmaMap::Start(it)).offset;
    if (memory_file_.RefCount(offset) == 1) {
      Result<size_t> written = safecopy::CopyOut(memory_file_.At(offset + (addr - page)), bytes.first(n));
      if (!written || *written < n) return Err(ENOMEM);
    } else {
      // A child has it too.
      Pma copy;
      std::byte* fresh = TRY(CopyPage(it, page, &copy));
      std::memcpy(fresh + (addr - page), bytes.data(), n);
      (void)InstallPages({page, page + kPageSize}, copy);
    }
    bytes = bytes.subspan(n);
    addr += n;
  }
  return {};
}

void MemoryManager::DisplaceHidden(AddrRange range) {
  if (hidden_ranges_ == 0) return;
  for (auto it = vmas_.FirstEndingAfter(range.start); it != vmas_.end() && VmaMap::Start(it) < range.end;) {
    if (it->second.value.hidden == 0) {
      ++it;
      continue;
    }
    AddrRange hidden{VmaMap::Start(it), VmaMap::End(it)};
    {
      sync::MutexLock active(active_mu_);
      RestorePatches(kEverywhere, hidden);
      DropPmas(hidden);
    }
    hidden_ranges_--;
    hidden_size_ -= hidden.length();
    it = vmas_.Erase(it);
    GapHasGrown(hidden);
  }
}

void MemoryManager::DropHidden() {
  fiber::MutexLock lock(mapping_mu_);
  DisplaceHidden(kEverywhere);
}

Result<> MemoryManager::PatchText(Addr addr, std::span<const std::byte> expected, std::span<const std::byte> bytes,
                                  Addr hidden) {
  const Addr page = PageRoundDown(addr);
  const size_t n = bytes.size();
  if (n == 0 || n > TextPatch::kMaxLength || expected.size() != n || addr - page + n > kPageSize) return Err(EINVAL);
  fiber::MutexLock lock(mapping_mu_);
  VmaIterator target = vmas_.Find(hidden);
  if (target == vmas_.end() || target->second.value.hidden == 0) return Err(EINVAL);
  VmaIterator v = vmas_.Find(page);
  if (v == vmas_.end() || v->second.value.hidden != 0) return Err(EFAULT);
  const Vma& vma = v->second.value;
  if (vma.shared || vma.mappable == nullptr || !vma.access.execute || vma.access.write) return Err(EACCES);
  for (;;) {
    {
      sync::MutexLock active(active_mu_);
      PmaIterator it = pmas_.Find(page);
      if (it != pmas_.end()) {
        const AddrRange text{addr, addr + n};
        auto other = FirstPatchIn(text);
        if (other != patches_.end() && other->first < text.end) return Err(EAGAIN);
        Pma copy;
        // The copy is compared, since a shared writable mapping of the file may change the original meanwhile.
        std::byte* fresh = TRY(CopyPage(it, page, &copy));
        if (std::memcmp(fresh + (addr - page), expected.data(), n) != 0) {
          memory_file_.DecRef({copy.offset, copy.offset + kPageSize});
          return Err(EAGAIN);
        }
        std::memcpy(fresh + (addr - page), bytes.data(), n);
        copy.private_copy = true;
        copy.writable = true;
        // If the platform cannot map it now, a fault will try again, so it is in effect.
        (void)InstallPages({page, page + kPageSize}, copy);
        TextPatch patch{.addr = addr, .hidden = hidden, .length = static_cast<uint8_t>(n)};
        std::ranges::copy(expected, patch.original.begin());
        std::ranges::copy(bytes, patch.patched.begin());
        patches_.emplace(addr, patch);
        return {};
      }
    }
    TRY(FaultMappable(page, v, kRead));
  }
}

std::optional<TextPatch> MemoryManager::FindPatch(Addr addr) {
  sync::MutexLock active(active_mu_);
  if (patches_.empty()) return std::nullopt;
  auto it = FirstPatchIn({addr, addr});
  if (it == patches_.end() || it->first > addr) return std::nullopt;
  return it->second;
}

std::map<Addr, TextPatch>::iterator MemoryManager::FirstPatchIn(AddrRange text) {
  auto it = patches_.lower_bound(text.start);
  if (it != patches_.begin() && std::prev(it)->second.range().end > text.start) --it;
  return it;
}

void MemoryManager::ForgetPatches(AddrRange text) {
  auto it = FirstPatchIn(text);
  while (it != patches_.end() && it->first < text.end) it = patches_.erase(it);
}

void MemoryManager::HidePatches(AddrRange text, std::byte* read) {
  for (auto it = FirstPatchIn(text); it != patches_.end() && it->first < text.end; ++it) {
    const TextPatch& p = it->second;
    const AddrRange seen = text.Intersect(p.range());
    std::memcpy(read + (seen.start - text.start), p.original.data() + (seen.start - p.addr), seen.length());
  }
}

void MemoryManager::RestorePatches(AddrRange text, AddrRange hidden) {
  if (patches_.empty()) return;
  std::vector<TextPatch> of_page;
  for (auto it = FirstPatchIn(text); it != patches_.end() && it->first < text.end;) {
    const Addr page = PageRoundDown(it->first);
    of_page.clear();
    while (it != patches_.end() && it->first < text.end && PageRoundDown(it->first) == page) {
      if (hidden.Contains(it->second.hidden)) {
        of_page.push_back(it->second);
        it = patches_.erase(it);
      } else {
        ++it;
      }
    }
    if (!of_page.empty()) RestorePage(page, of_page);
  }
}

void MemoryManager::RestorePage(Addr page, std::span<const TextPatch> patches) {
  PmaIterator it = pmas_.Find(page);
  CHECK(it != pmas_.end() && it->second.value.private_copy, "a patch without its page");
  auto undo = [&](std::byte* bytes) {
    for (const TextPatch& p : patches) {
      std::byte* at = bytes + (p.addr - page);
      if (std::memcmp(at, p.patched.data(), p.length) == 0) std::memcpy(at, p.original.data(), p.length);
    }
  };
  Pma copy;
  Result<std::byte*> fresh = CopyPage(it, page, &copy);
  if (!fresh) {
    // Without memory for a copy, a thread that runs just there may see half of it, which is better than a jump to
    // nowhere. The original bytes are as good for a child that has the page.
    undo(memory_file_.At(it->second.value.After(page - internal::PmaMap::Start(it)).offset));
    return;
  }
  undo(*fresh);
  copy.writable = true;
  (void)InstallPages({page, page + kPageSize}, copy);
}

Result<std::byte*> MemoryManager::CopyPage(PmaIterator it, Addr page, Pma* copy) {
  uint64_t old = it->second.value.After(page - internal::PmaMap::Start(it)).offset;
  std::optional<memmap::FileRange> recycled = memory_file_.Recycle(kPageSize);
  memmap::FileRange fresh = recycled ? *recycled : TRY(memory_file_.Allocate(kPageSize));
  std::byte* bytes = memory_file_.At(fresh.start);
  Result<size_t> copied = safecopy::CopyBetween(bytes, memory_file_.At(old), kPageSize);
  if (!copied || *copied != kPageSize) {
    memory_file_.DecRef(fresh);
    return Err(ENOMEM);
  }
  *copy = it->second.value;
  copy->offset = fresh.start;
  return bytes;
}

}  // namespace redoubt::mm
