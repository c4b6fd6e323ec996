// The tmpfs superblock: limits and counters. Private to tmpfs.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_FILESYSTEM_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_FILESYSTEM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/fsimpl/tmpfs/tmpfs.h"
#include "pkg/sync/mutex.h"

namespace redoubt::tmpfs {

class Directory;

class TmpfsFilesystem final : public vfs::Filesystem {
 public:
  TmpfsFilesystem(pgalloc::MemoryFile& memory_file, const Options& options, std::unique_ptr<pgalloc::MemoryFile> disk);
  ~TmpfsFilesystem() override;

  std::string_view type_name() const override { return options_.type_name; }
  RefPtr<vfs::Inode> root() override;
  Result<struct statfs> Statfs() override;
  std::string MountOptions() const override;

  // Pages of regular files, in the memory file or, if there is one and the offset says so, on the disk.
  enum class Medium { kMemory, kDisk };
  Medium default_medium() const { return disk_ ? Medium::kDisk : Medium::kMemory; }
  static Medium MediumOf(uint64_t memory) { return (memory & kOnDisk) != 0 ? Medium::kDisk : Medium::kMemory; }
  // ENOMEM, ENOSPC.
  Result<memmap::FileRange> Allocate(Medium medium, uint64_t length);
  void HoldPages(memmap::FileRange range) { FileOf(range.start).IncRef(Plain(range)); }
  void DropPages(memmap::FileRange range) { FileOf(range.start).DecRef(Plain(range)); }
  std::byte* At(uint64_t memory) { return FileOf(memory).At(memory & ~kOnDisk); }
  // ENOSPC at the limit. An inode counts while it lives.
  Result<> ChargeInode();
  void UnchargeInode() { inodes_.fetch_sub(1, std::memory_order_relaxed); }
  uint64_t NextIno() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }
  // Names and values of extended attributes. ENOSPC.
  Result<> ChargeXattrs(uint64_t bytes);
  void UnchargeXattrs(uint64_t bytes) { xattrs_.fetch_sub(bytes, std::memory_order_relaxed); }
  // Pages of regular files.
  Result<> ChargePages(uint64_t pages);
  void UnchargePages(uint64_t pages) { pages_.fetch_sub(pages, std::memory_order_relaxed); }
  uint64_t FreePages() const;

 private:
  static constexpr uint64_t kOnDisk = uint64_t{1} << 62;
  pgalloc::MemoryFile& FileOf(uint64_t memory) { return MediumOf(memory) == Medium::kDisk ? *disk_ : memory_file_; }
  static memmap::FileRange Plain(memmap::FileRange r) { return {r.start & ~kOnDisk, r.end & ~kOnDisk}; }

  pgalloc::MemoryFile& memory_file_;
  const Options options_;
  const std::unique_ptr<pgalloc::MemoryFile> disk_;
  std::atomic<uint64_t> inodes_{0};
  std::atomic<uint64_t> pages_{0};
  std::atomic<uint64_t> xattrs_{0};  // bytes
  std::atomic<uint64_t> next_ino_{1};
  sync::Mutex mu_{sync::Rank::kFileSystem};
  // The tree hangs on it. An inode does not hold the file system, so this is no circle; it goes first.
  RefPtr<Directory> root_ GUARDED_BY(mu_);
};

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_FILESYSTEM_H_
