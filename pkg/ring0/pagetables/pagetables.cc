#include "pkg/ring0/pagetables/pagetables.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace redoubt::ring0::pagetables {
namespace {

constexpr int kRootLevel = 4;
constexpr size_t kUpperHalf = kEntries / 2;

constexpr int Shift(int level) { return 12 + 9 * (level - 1); }
constexpr uint64_t Span(int level) { return uint64_t{1} << Shift(level); }
constexpr size_t Index(Addr addr, int level) { return (addr >> Shift(level)) & (kEntries - 1); }

// A walker reads at the same time; everything that the new value points to must be there before it.
void Store(uint64_t& entry, uint64_t value) { std::atomic_ref(entry).store(value, std::memory_order_release); }

uint64_t LeafFlags(AccessType access, bool user) {
  return kPresent | kAccessed | kDirty | (access.write ? kWritable : 0) | (access.execute ? 0 : kNoExecute) |
         (user ? kUser : 0);
}

// What is lost when `before` becomes `after`, both leaves of one size or nothing.
bool Loses(uint64_t before, uint64_t after) {
  if ((before & kPresent) == 0) return false;
  if ((after & kPresent) == 0 || (before & kAddressMask) != (after & kAddressMask)) return true;
  const uint64_t gone = before & ~after & (kWritable | kUser);
  return gone != 0 || (~before & after & kNoExecute) != 0;
}

bool IsRange(Addr addr, uint64_t length) {
  if (length == 0 || !IsPageAligned(addr) || !IsPageAligned(length)) return false;
  const Addr last = addr + length - 1;
  if (last < addr) return false;
  const int64_t top = static_cast<int64_t>(addr) >> 47;
  return (top == 0 || top == -1) && top == static_cast<int64_t>(last) >> 47;
}

}  // namespace

// What is to be done to a range.
struct PageTables::Change {
  enum class Kind { kMap, kUnmap, kProtect } kind;
  uint64_t flags = 0;  // of leaves
  bool huge = false;
  // Physical less virtual address.
  uint64_t delta = 0;

  // The leaf's new value; `addr` is its page's.
  uint64_t Apply(uint64_t before, Addr addr) const {
    switch (kind) {
      case Kind::kMap:
        return (addr + delta) | flags;
      case Kind::kUnmap:
        return 0;
      case Kind::kProtect:
        return (before & (kAddressMask | kUser)) | (flags & ~kUser);
    }
    return 0;
  }
};

Result<PageTables> PageTables::Create(Allocator& allocator) { return PageTables(allocator, TRY(allocator.NewPTEs())); }

PageTables::PageTables(PageTables&& o) noexcept
    : allocator_(o.allocator_),
      root_(std::exchange(o.root_, nullptr)),
      tables_(o.tables_),
      shares_upper_half_(o.shares_upper_half_) {}

PageTables::~PageTables() {
  if (root_ != nullptr) FreeLevel(root_, kRootLevel, shares_upper_half_ ? kUpperHalf : kEntries);
}

void PageTables::FreeLevel(PTEs* table, int level, size_t count) {
  for (size_t i = 0; i < count && level > 1; i++) {
    const uint64_t entry = table->entries[i];
    if ((entry & kPresent) != 0 && (entry & kHuge) == 0) {
      FreeLevel(allocator_->LookupPTEs(entry & kAddressMask), level - 1, kEntries);
    }
  }
  allocator_->FreePTEs(table);
}

Result<PTEs*> PageTables::NewTable() {
  PTEs* table = TRY(allocator_->NewPTEs());
  tables_++;
  return table;
}

void PageTables::ShareUpperHalf(const PageTables& other) {
  for (size_t i = kUpperHalf; i < kEntries; i++) Store(root_->entries[i], other.root_->entries[i]);
  shares_upper_half_ = true;
}

Result<> PageTables::Map(Addr addr, uint64_t length, uint64_t physical, const MapOptions& options, Listener& listener) {
  if (!options.access.any()) return Unmap(addr, length, listener);
  if (!IsPageAligned(physical) || physical + length < physical || (physical + length - 1) > (kAddressMask | kPageMask))
    return Err(EINVAL);
  return Apply({.kind = Change::Kind::kMap,
                .flags = LeafFlags(options.access, options.user),
                .huge = options.huge,
                .delta = physical - addr},
               addr, length, listener);
}

Result<> PageTables::Unmap(Addr addr, uint64_t length, Listener& listener) {
  return Apply({.kind = Change::Kind::kUnmap}, addr, length, listener);
}

Result<> PageTables::Protect(Addr addr, uint64_t length, AccessType access, Listener& listener) {
  if (!access.any()) return Unmap(addr, length, listener);
  return Apply({.kind = Change::Kind::kProtect, .flags = LeafFlags(access, false)}, addr, length, listener);
}

Result<> PageTables::Apply(const Change& change, Addr addr, uint64_t length, Listener& listener) {
  if (!IsRange(addr, length)) return Err(EINVAL);
  if (shares_upper_half_ && static_cast<int64_t>(addr) < 0) return Err(EINVAL);
  // Of the 48 bits that are translated, so that the end of the upper half does not wrap.
  constexpr uint64_t kTranslated = (uint64_t{1} << 48) - 1;
  const Addr start = addr & kTranslated;
  Change translated = change;
  translated.delta = change.delta + (addr - start);
  return ApplyLevel(translated, *root_, kRootLevel, start, start + length, listener);
}

Result<> PageTables::ApplyLevel(const Change& change, PTEs& table, int level, Addr start, Addr end,
                                Listener& listener) {
  const bool mapping = change.kind == Change::Kind::kMap;
  const uint64_t span = Span(level);
  for (Addr at = start; at < end;) {
    const Addr next = std::min(end, (at & ~(span - 1)) + span);
    uint64_t& entry = table.entries[Index(at, level)];
    const uint64_t before = entry;
    const bool present = (before & kPresent) != 0;
    const bool huge_leaf = level == 2 && present && (before & kHuge) != 0;
    const bool whole = next - at == span;
    // A table that is there stays: see the header.
    const bool may_be_huge = level == 2 && whole && (huge_leaf || !present) &&
                             (!mapping || (change.huge && ((at + change.delta) & (span - 1)) == 0));
    if (level == 1 || (may_be_huge && (huge_leaf || mapping))) {
      if (present || mapping) {
        uint64_t after = change.Apply(before, at);
        if (level == 2 && after != 0) after |= kHuge;
        if (after != before) Store(entry, after);
        if (Loses(before, after)) {
          const uint64_t bits = uint64_t{1} << 47;
          listener.Lost((at & bits) != 0 ? at | ~(2 * bits - 1) : at, before & kAddressMask, span);
        }
      }
    } else if (present || mapping) {
      PTEs* child = nullptr;
      if (huge_leaf) {
        child = TRY(Split(entry));
      } else if (present) {
        child = allocator_->LookupPTEs(before & kAddressMask);
      } else {
        child = TRY(NewTable());
        // The leaf decides what is allowed. User tables only where users are.
        const uint64_t user = (change.flags & kUser) != 0 ? kUser : 0;
        Store(entry, allocator_->PhysicalFor(child) | kPresent | kWritable | kAccessed | user);
      }
      TRY(ApplyLevel(change, *child, level - 1, at, next, listener));
    }
    at = next;
  }
  return {};
}

// The same pages by a table of small ones. What a walker has cached of the large one stays right.
Result<PTEs*> PageTables::Split(uint64_t& entry) {
  PTEs* child = TRY(NewTable());
  const uint64_t small = entry & ~kHuge;
  for (size_t i = 0; i < kEntries; i++) child->entries[i] = small + i * kPageSize;
  Store(entry, allocator_->PhysicalFor(child) | kPresent | kWritable | kAccessed | (entry & kUser));
  return child;
}

std::optional<Translation> PageTables::Walk(Addr addr) const {
  const int64_t top = static_cast<int64_t>(addr) >> 47;
  if (top != 0 && top != -1) return std::nullopt;
  uint64_t rights = kWritable | kUser;
  uint64_t no_execute = 0;
  const PTEs* table = root_;
  for (int level = kRootLevel;; level--) {
    const uint64_t entry = table->entries[Index(addr, level)];
    if ((entry & kPresent) == 0) return std::nullopt;
    rights &= entry;
    no_execute |= entry & kNoExecute;
    if (level == 1 || (level == 2 && (entry & kHuge) != 0)) {
      const uint64_t offset = addr & (Span(level) - 1);
      return Translation{
          .physical = (entry & kAddressMask) + offset,
          .size = Span(level),
          .access = {.read = true, .write = (rights & kWritable) != 0, .execute = no_execute == 0},
          .user = (rights & kUser) != 0,
      };
    }
    table = allocator_->LookupPTEs(entry & kAddressMask);
  }
}

}  // namespace redoubt::ring0::pagetables
