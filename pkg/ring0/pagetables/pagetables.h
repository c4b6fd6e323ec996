// 4-level x86-64 page tables (SDM vol. 3, 4.5; APM vol. 2, 5.3), usable without a virtual machine.
//
// Entries are written with single 64-bit stores and with the accessed and dirty bits already set, so a processor (or a
// hypervisor) may walk the tables while they change and never writes to them. What it has cached of an entry that goes
// away, points elsewhere or loses rights is the Listener's affair; new entries and gained rights need nothing, since
// processors do not cache what is not present and fault again on what has become allowed.
//
// Tables are never freed before the PageTables are: a walker may have cached the way to one that has become empty.
#ifndef REDOUBT_PKG_RING0_PAGETABLES_PAGETABLES_H_
#define REDOUBT_PKG_RING0_PAGETABLES_PAGETABLES_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"

namespace redoubt::ring0::pagetables {

// Bits of an entry.
inline constexpr uint64_t kPresent = 1 << 0;
inline constexpr uint64_t kWritable = 1 << 1;
inline constexpr uint64_t kUser = 1 << 2;
inline constexpr uint64_t kAccessed = 1 << 5;
inline constexpr uint64_t kDirty = 1 << 6;
inline constexpr uint64_t kHuge = 1 << 7;  // in a page directory: a leaf of 2 MiB
inline constexpr uint64_t kNoExecute = uint64_t{1} << 63;
inline constexpr uint64_t kAddressMask = 0x000ffffffffff000;

inline constexpr size_t kEntries = 512;

// One table of any level.
struct alignas(kPageSize) PTEs {
  uint64_t entries[kEntries];
};
static_assert(sizeof(PTEs) == kPageSize);

// Memory for tables. Not locked by PageTables: if shared between several, it locks itself.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // A table of zeros. ENOMEM.
  virtual Result<PTEs*> NewPTEs() = 0;
  virtual void FreePTEs(PTEs* table) = 0;
  // Where the walker finds it, and back.
  virtual uint64_t PhysicalFor(const PTEs* table) = 0;
  virtual PTEs* LookupPTEs(uint64_t physical) = 0;
};

// Hears of entries that a walker may have cached and that no longer hold.
class Listener {
 public:
  virtual ~Listener() = default;
  // [addr, addr + length) was mapped to [physical, physical + length), and is not, or with fewer rights. The entries
  // have been written. Neighbours come in ascending order of `addr`.
  virtual void Lost(Addr addr, uint64_t physical, uint64_t length) = 0;
};

struct MapOptions {
  AccessType access;  // anything at all makes it readable, as the architecture has it
  bool user = true;
  bool huge = false;  // leaves of 2 MiB where addresses allow
};

struct Translation {
  uint64_t physical = 0;  // of the byte asked for
  uint64_t size = 0;      // of its page
  AccessType access;
  bool user = false;
};

// Not thread-safe, walkers excepted. Owns its tables, those that ShareUpperHalf brought in excepted.
class PageTables final {
 public:
  static Result<PageTables> Create(Allocator& allocator);
  ~PageTables();
  PageTables(PageTables&& o) noexcept;
  PageTables(const PageTables&) = delete;
  PageTables& operator=(const PageTables&) = delete;

  // Maps the page-aligned range [addr, addr + length), replacing what was there. EINVAL for a range that is empty,
  // unaligned or not canonical (one half of the address space). ENOMEM: a part may be mapped.
  Result<> Map(Addr addr, uint64_t length, uint64_t physical, const MapOptions& options, Listener& listener);
  // Nothing mapped in the range is fine. EINVAL as above; ENOMEM if a huge page had to be split, with nothing changed
  // from there on.
  Result<> Unmap(Addr addr, uint64_t length, Listener& listener);
  // Gives the pages that are mapped in the range these rights; an access of none unmaps them.
  Result<> Protect(Addr addr, uint64_t length, AccessType access, Listener& listener);
  std::optional<Translation> Walk(Addr addr) const;

  // The upper half of the address space becomes the other's, now and (once it has something mapped there) later.
  void ShareUpperHalf(const PageTables& other);

  // What CR3 is loaded with.
  uint64_t root_physical() const { return allocator_->PhysicalFor(root_); }
  // How many tables it owns, the root included.
  size_t tables() const { return tables_; }

 private:
  PageTables(Allocator& allocator, PTEs* root) : allocator_(&allocator), root_(root) {}

  struct Change;
  Result<> Apply(const Change& change, Addr addr, uint64_t length, Listener& listener);
  Result<> ApplyLevel(const Change& change, PTEs& table, int level, Addr start, Addr end, Listener& listener);
  Result<PTEs*> Split(uint64_t& entry);
  Result<PTEs*> NewTable();
  void FreeLevel(PTEs* table, int level, size_t count);

  Allocator* allocator_;
  PTEs* root_;
  size_t tables_ = 1;
  bool shares_upper_half_ = false;
};

}  // namespace redoubt::ring0::pagetables

#endif  // REDOUBT_PKG_RING0_PAGETABLES_PAGETABLES_H_
