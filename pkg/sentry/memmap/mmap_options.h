// What mmap(2) asks of an address space. Apart from the memory manager, so that files, which fill it in, need not know
// that.
#ifndef REDOUBT_PKG_SENTRY_MEMMAP_MMAP_OPTIONS_H_
#define REDOUBT_PKG_SENTRY_MEMMAP_MMAP_OPTIONS_H_

#include <cstdint>
#include <string>

#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/memmap/memmap.h"

namespace redoubt::mm {

struct MMapOptions {
  Addr addr = 0;        // a hint, or the address if fixed
  uint64_t length = 0;  // bytes; rounded up to pages
  bool fixed = false;
  bool no_replace = false;  // MAP_FIXED_NOREPLACE: EEXIST instead of replacing
  bool shared = false;      // MAP_SHARED; otherwise copy-on-write
  bool grows_down = false;  // MAP_GROWSDOWN: a stack
  bool populate = false;    // MAP_POPULATE
  bool locked = false;      // MAP_LOCKED
  bool no_reserve = false;
  bool map_32bit = false;  // MAP_32BIT
  AccessType access;
  AccessType max_access = kAnyAccess;  // what mprotect may raise it to
  // Null for anonymous memory (a shared anonymous mapping is given a Mappable of mm's own).
  memmap::Mappable* mappable = nullptr;
  RefPtr<memmap::MappingIdentity> identity;
  uint64_t offset = 0;  // bytes into the mappable, page aligned
  std::string name;     // "[stack]", "[vdso]", ...: shown in /proc/PID/maps where there is no identity
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MEMMAP_MMAP_OPTIONS_H_
