// Private to overlay: open directories, and regular files of the lower layer open for reading. (Files of the upper
// layer are opened as that does it.)
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_DESCRIPTION_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_DESCRIPTION_H_

#include <utility>
#include <vector>

#include "pkg/sentry/fsimpl/overlay/inode.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"

namespace redoubt::overlay {

// Reads the lower file until it is copied up, then the copy, as Linux does since 4.19. What has been mapped stays the
// lower file's.
class LowerFileDescription final : public vfs::FileDescription {
 public:
  LowerFileDescription(RefPtr<OverlayInode> inode, RefPtr<vfs::FileDescription> lower, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), inode_(std::move(inode)), lower_(std::move(lower)) {}

  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags flags) override;
  Result<uint64_t> Seek(int64_t offset, int whence) override;
  Result<> Sync(bool data_only) override;
  Result<> ConfigureMMap(mm::MMapOptions& options) override;
  Result<> OnClose() override { return lower_->OnClose(); }

 private:
  Result<RefPtr<vfs::FileDescription>> Real() EXCLUDES(mu_);

  const RefPtr<OverlayInode> inode_;
  const RefPtr<vfs::FileDescription> lower_;
  sync::Mutex mu_{sync::Rank::kFileOffset};
  RefPtr<vfs::FileDescription> upper_ GUARDED_BY(mu_);  // opened at the first use after copying up
};

// Lists what the directory held when it was first read or rewound.
class DirectoryDescription final : public vfs::FileDescription {
 public:
  DirectoryDescription(RefPtr<OverlayInode> inode, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), inode_(std::move(inode)) {}

  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EISDIR); }
  Result<size_t> PRead(IoSequence&, uint64_t, vfs::IoFlags) override { return Err(EISDIR); }
  Result<uint64_t> Seek(int64_t offset, int whence) override;
  Result<> Getdents(vfs::DirentSink& sink) override;

 private:
  const RefPtr<OverlayInode> inode_;
  std::vector<DirectoryEntry> entries_;  // under offset_lock()
  bool loaded_ = false;
};

}  // namespace redoubt::overlay

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_DESCRIPTION_H_
