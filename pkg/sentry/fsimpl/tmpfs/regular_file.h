// A tmpfs regular file: its page cache is its only store. Private to tmpfs.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_REGULAR_FILE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_REGULAR_FILE_H_

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/fsimpl/tmpfs/filesystem.h"
#include "pkg/sentry/fsimpl/tmpfs/node.h"
#include "pkg/sentry/fsimpl/tmpfs/page_map.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::tmpfs {

// Locks: write_lock_ (Linux's i_rwsem) makes writes, truncations and fallocate one at a time and may be held while
// guest memory is touched; data_mu_ guards the page map, the size and the mappings, and is not held then: who copies
// holds references on the pages instead. Reads take only data_mu_.
class RegularFile final : public Node, public memmap::Mappable {
 public:
  RegularFile(TmpfsFilesystem& fs, const vfs::NewInode& n, uint32_t nlink) : Node(fs, n, nlink) {}
  ~RegularFile() override;

  Result<> SetAttributes(const vfs::AttributeChange& change) override;
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;

  Result<size_t> ReadAt(IoSequence& dst, uint64_t offset);
  Result<size_t> WriteAt(IoSequence& src, uint64_t offset);
  Result<vfs::FileDescription::Appended> Append(IoSequence& src);
  Result<> Allocate(int mode, uint64_t offset, uint64_t length);
  Result<uint64_t> SeekDataOrHole(uint64_t offset, bool data);
  uint64_t size() const EXCLUDES(data_mu_);

  int seals() const EXCLUDES(data_mu_);
  // memfd_create without MFD_ALLOW_SEALING and all files with names start with F_SEAL_SEAL.
  void AllowSealing() EXCLUDES(data_mu_);
  Result<> AddSeals(int seals) EXCLUDES(data_mu_);

  // memmap::Mappable
  Result<> AddMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) override;
  void RemoveMapping(memmap::MappingSpace& space, AddrRange range, uint64_t offset, bool writable) override;
  Result<memmap::FileRange> Translate(uint64_t offset, uint64_t length, AccessType access) override;

 protected:
  Size GetSize() const override;

 private:
  struct Mapping {
    AddrRange range;
    uint64_t offset;
    bool writable;
  };

  Result<size_t> WriteLocked(IoSequence& src, uint64_t offset) REQUIRES(write_lock_);
  Result<> TruncateLocked(uint64_t size) REQUIRES(write_lock_);
  // The run at `offset`, holes filled by at most `max_length` fresh bytes. ENOSPC, ENOMEM.
  Result<PageMap::Run> FillLocked(uint64_t offset, uint64_t limit, uint64_t max_length, TmpfsFilesystem::Medium medium)
      REQUIRES(data_mu_);
  // The run, or the first part of it, which is on the disk, is in memory then. ENOMEM.
  Result<PageMap::Run> MoveToMemoryLocked(PageMap::Run run) REQUIRES(data_mu_);
  // What was written to pages of `run` also is where they have been moved meanwhile: a write that copies and a fault do
  // not wait for each other.
  void FollowMoved(const PageMap::Run& run, uint64_t offset, uint64_t length) REQUIRES(write_lock_) EXCLUDES(data_mu_);
  // Zeroes [start, end) and gives back its whole pages.
  void PunchLocked(uint64_t start, uint64_t end, bool invalidate_private) REQUIRES(data_mu_);
  void InvalidateLocked(uint64_t start, uint64_t end, bool invalidate_private) REQUIRES(data_mu_);

  fiber::Mutex write_lock_;
  mutable sync::Mutex data_mu_{sync::Rank::kMappable};
  uint64_t size_ GUARDED_BY(data_mu_) = 0;
  PageMap pages_ GUARDED_BY(data_mu_);
  std::unordered_map<memmap::MappingSpace*, std::vector<Mapping>> mappings_ GUARDED_BY(data_mu_);
  int seals_ GUARDED_BY(data_mu_) = 1;  // F_SEAL_SEAL
};

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_REGULAR_FILE_H_
