// Guest virtual addresses, page arithmetic and access types for x86-64. Data only.
#ifndef REDOUBT_PKG_HOSTARCH_HOSTARCH_H_
#define REDOUBT_PKG_HOSTARCH_HOSTARCH_H_

#include <cstddef>
#include <cstdint>

namespace redoubt {

// A guest virtual address. Never dereferenced by the Sentry: bytes move by MemoryIo only.
using Addr = uint64_t;

inline constexpr uint64_t kPageShift = 12;
inline constexpr uint64_t kPageSize = uint64_t{1} << kPageShift;
inline constexpr uint64_t kPageMask = kPageSize - 1;
inline constexpr uint64_t kHugePageSize = uint64_t{2} << 20;

constexpr uint64_t PageRoundDown(uint64_t v) { return v & ~kPageMask; }
// False if the rounded value does not fit.
constexpr bool PageRoundUp(uint64_t v, uint64_t* out) {
  *out = (v + kPageMask) & ~kPageMask;
  return *out >= v;
}
// For values known not to overflow.
constexpr uint64_t MustPageRoundUp(uint64_t v) { return (v + kPageMask) & ~kPageMask; }
constexpr bool IsPageAligned(uint64_t v) { return (v & kPageMask) == 0; }

// Half-open [start, end).
struct AddrRange {
  Addr start = 0;
  Addr end = 0;

  constexpr uint64_t length() const { return end - start; }
  constexpr bool empty() const { return start >= end; }
  constexpr bool Contains(Addr a) const { return a >= start && a < end; }
  constexpr bool Contains(AddrRange r) const { return r.start >= start && r.end <= end; }
  constexpr bool Overlaps(AddrRange r) const { return start < r.end && r.start < end; }
  constexpr AddrRange Intersect(AddrRange r) const {
    Addr s = start > r.start ? start : r.start;
    Addr e = end < r.end ? end : r.end;
    return s < e ? AddrRange{s, e} : AddrRange{s, s};
  }
  friend constexpr bool operator==(const AddrRange&, const AddrRange&) = default;
};

// False if addr + length wraps.
constexpr bool ToRange(Addr addr, uint64_t length, AddrRange* out) {
  *out = AddrRange{addr, addr + length};
  return out->end >= addr;
}

// What an access does or a mapping allows; any mixture.
struct AccessType {
  bool read = false;
  bool write = false;
  bool execute = false;

  constexpr bool any() const { return read || write || execute; }
  // True if all that `other` does is allowed by this.
  constexpr bool Allows(AccessType other) const {
    return (read || !other.read) && (write || !other.write) && (execute || !other.execute);
  }
  constexpr AccessType Intersect(AccessType o) const {
    return {read && o.read, write && o.write, execute && o.execute};
  }
  friend constexpr bool operator==(const AccessType&, const AccessType&) = default;
};

inline constexpr AccessType kRead{.read = true};
inline constexpr AccessType kWrite{.write = true};
inline constexpr AccessType kExecute{.execute = true};
inline constexpr AccessType kReadWrite{.read = true, .write = true};
inline constexpr AccessType kAnyAccess{.read = true, .write = true, .execute = true};

}  // namespace redoubt

#endif  // REDOUBT_PKG_HOSTARCH_HOSTARCH_H_
