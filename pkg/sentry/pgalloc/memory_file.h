// The sandbox's memory: one sparse memfd, mapped whole once into the Sentry, so that guest page to Sentry pointer is an
// addition. All guest pages and page caches live here. And the same on a file of the host's, for what is to be on a
// disk: platforms cannot map that.
#ifndef REDOUBT_PKG_SENTRY_PGALLOC_MEMORY_FILE_H_
#define REDOUBT_PKG_SENTRY_PGALLOC_MEMORY_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "pkg/errors/errors.h"
#include "pkg/hostarch/hostarch.h"
#include "pkg/sentry/memmap/memmap.h"

namespace redoubt::pgalloc {

class MemoryFile {
 public:
  struct Options {
    uint64_t limit = uint64_t{1} << 40;  // bytes of pages in use before Allocate returns ENOMEM
  };
  static Result<std::unique_ptr<MemoryFile>> Create(const Options& options);
  // On `file`, which is empty and nobody else's, and is owned from now on. Allocate takes room on its disk for every
  // page, so that no access finds it full: ENOSPC and other errors of fallocate(2). Recycle has nothing.
  static Result<std::unique_ptr<MemoryFile>> CreateOnFile(int file);
  virtual ~MemoryFile() = default;

  // `length` bytes (a multiple of the page size), contiguous, zero-filled, each page with one reference. ENOMEM at the
  // limit, from which goes what the process' own objects take (heap::Used).
  virtual Result<memmap::FileRange> Allocate(uint64_t length) = 0;
  // As Allocate, but of memory that was freed lately, with its old contents and probably still committed by the host
  // (some ten times cheaper to fill than fresh memory). For callers that overwrite all of it before a guest sees it.
  // Nothing if there is none.
  virtual std::optional<memmap::FileRange> Recycle(uint64_t length) = 0;
  virtual void IncRef(memmap::FileRange range) = 0;
  // Pages whose count reaches zero may be allocated again. A few MiB of them stay committed, the others are given back
  // to the host.
  virtual void DecRef(memmap::FileRange range) = 0;
  // A snapshot of one page's count: mm may write a private page in place only if it is 1.
  virtual uint32_t RefCount(uint64_t offset) = 0;
  // The same of all pages in the range; `counts` has as many places.
  virtual void RefCounts(memmap::FileRange range, std::span<uint32_t> counts) = 0;

  // The Sentry's own view. Valid as long as the caller holds a reference on the pages. The guest writes there at the
  // same time.
  virtual std::byte* At(uint64_t offset) = 0;
  // Writes `bytes` at `offset`, into pages that only the caller has references on. For memory that was allocated just
  // now and is likely not committed: the host takes half as long as for bytes that are stored through At(), each page
  // of which faults. Errors of pwritev2(2).
  virtual Result<> Write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual int fd() const = 0;
  virtual uint64_t usage() const = 0;  // bytes in pages with a reference
  virtual uint64_t limit() const = 0;
};

}  // namespace redoubt::pgalloc

#endif  // REDOUBT_PKG_SENTRY_PGALLOC_MEMORY_FILE_H_
