// The border between what is mapped (files, shared memory) and who maps it (mm): Linux's address_space and
// vm_operations_struct.
#ifndef REDOUBT_PKG_SENTRY_MEMMAP_MEMMAP_H_
#define REDOUBT_PKG_SENTRY_MEMMAP_MEMMAP_H_

#include <cstdint>
#include <string>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/refs/refs.h"

namespace redoubt::memmap {

// Page-aligned bytes of the memory file, half-open.
struct FileRange {
  uint64_t start = 0;
  uint64_t end = 0;
  constexpr uint64_t length() const { return end - start; }
  friend constexpr bool operator==(const FileRange&, const FileRange&) = default;
};

// An address space seen from a Mappable.
class MappingSpace {
 public:
  virtual ~MappingSpace() = default;
  // The pages of `range` are no longer what Translate returned (the file was truncated): drop them, so that the next
  // access asks again. Private copies already made are dropped only if `invalidate_private` (truncation). May be called
  // with the Mappable's lock held (rank kMappable); takes kActivePages.
  virtual void Invalidate(AddrRange range, bool invalidate_private) = 0;
};

// What a mapping shows. Implemented by regular-file inodes and shared memory; kept alive by the mapping's
// MappingIdentity.
class Mappable {
 public:
  virtual ~Mappable() = default;

  // `space` maps offsets from `offset` at `range` (page aligned). Called with `space`'s mapping lock held. What is
  // removed may be a part of what one call added, or what several calls added side by side; `writable` (a shared
  // mapping that may be written) is the same.
  virtual Result<> AddMapping(MappingSpace& space, AddrRange range, uint64_t offset, bool writable) = 0;
  virtual void RemoveMapping(MappingSpace& space, AddrRange range, uint64_t offset, bool writable) = 0;

  // The memory-file pages behind [offset, offset + length), page aligned; may return fewer from the front, at least a
  // page, contiguous in the memory file. The caller receives one reference on each page (MemoryFile::DecRef).
  // `access.write`: the pages will be written through a shared mapping. Fails where Linux sends SIGBUS (past the end of
  // the file, no space). May block the fiber.
  virtual Result<FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) = 0;
};

// What /proc/PID/maps shows of a mapping, and what keeps its Mappable alive: a FileDescription, mostly.
class MappingIdentity : public RefCounted {
 public:
  virtual std::string MappedName() const = 0;
  virtual uint64_t MappedDevice() const = 0;  // as st_dev
  virtual uint64_t MappedInode() const = 0;
  // msync(2) of a shared mapping: bytes [offset, offset + length) of the file.
  virtual Result<> MappedSync(uint64_t offset, uint64_t length) = 0;
};

}  // namespace redoubt::memmap

#endif  // REDOUBT_PKG_SENTRY_MEMMAP_MEMMAP_H_
