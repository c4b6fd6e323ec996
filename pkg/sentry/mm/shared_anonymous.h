// The memory behind mmap(MAP_SHARED | MAP_ANONYMOUS): Linux's unnamed shmem file, "/dev/zero (deleted)".
#ifndef REDOUBT_PKG_SENTRY_MM_SHARED_ANONYMOUS_H_
#define REDOUBT_PKG_SENTRY_MM_SHARED_ANONYMOUS_H_

#include <cstdint>
#include <string>

#include "pkg/segment/interval_map.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sync/mutex.h"

namespace redoubt::mm {

// Lives as long as something maps it. Its pages come with the first access and go with it. mremap(2) does not make it
// longer.
class SharedAnonymous final : public memmap::MappingIdentity, public memmap::Mappable {
 public:
  // `size` in bytes, page aligned.
  SharedAnonymous(pgalloc::MemoryFile& memory_file, uint64_t size);
  ~SharedAnonymous() override;

  // Nothing ever changes under its mappings, so it need not know them.
  Result<> AddMapping(memmap::MappingSpace&, AddrRange, uint64_t, bool) override { return {}; }
  void RemoveMapping(memmap::MappingSpace&, AddrRange, uint64_t, bool) override {}
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override EXCLUDES(mu_);

  std::string MappedName() const override { return "/dev/zero (deleted)"; }
  uint64_t MappedDevice() const override { return 1; }
  uint64_t MappedInode() const override { return inode_; }
  Result<> MappedSync(uint64_t, uint64_t) override { return {}; }

 private:
  struct Page {
    uint64_t offset;  // in the memory file
    Page After(uint64_t delta) const { return {offset + delta}; }
    bool Continues(const Page& p, uint64_t length) const { return offset == p.offset + length; }
  };

  pgalloc::MemoryFile& memory_file_;
  const uint64_t size_;
  const uint64_t inode_;
  sync::Mutex mu_;
  segment::IntervalMap<Page> pages_ GUARDED_BY(mu_);
};

}  // namespace redoubt::mm

#endif  // REDOUBT_PKG_SENTRY_MM_SHARED_ANONYMOUS_H_
