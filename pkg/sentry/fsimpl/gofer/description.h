// Private to goferfs: open regular files and directories.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_GOFER_DESCRIPTION_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_GOFER_DESCRIPTION_H_

#include <vector>

#include "pkg/sentry/fsimpl/gofer/inode.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::goferfs {

class RegularDescription final : public vfs::FileDescription {
 public:
  RegularDescription(RefPtr<GoferInode> inode, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), inode_(std::move(inode)) {
    inode_->DescriptionOpened();
  }
  ~RegularDescription() override { inode_->DescriptionClosed(); }

  Result<size_t> PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags) override { return inode_->ReadAt(dst, offset); }
  Result<size_t> PWrite(IoSequence& src, uint64_t offset, vfs::IoFlags) override {
    return inode_->WriteAt(src, offset, false, nullptr);
  }
  Result<Appended> Append(IoSequence& src, vfs::IoFlags) override;
  Result<> Allocate(int mode, uint64_t offset, uint64_t length) override;
  Result<> ConfigureMMap(mm::MMapOptions& options) override;
  Result<> Sync(bool data_only) override { return inode_->Sync(data_only); }
  Result<> OnClose() override { return inode_->WriteBack(); }

 private:
  const RefPtr<GoferInode> inode_;
};

// Lists what the directory held when it was first read or rewound.
class DirectoryDescription final : public vfs::FileDescription {
 public:
  DirectoryDescription(RefPtr<GoferInode> inode, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), inode_(std::move(inode)) {}

  Result<size_t> Read(IoSequence&, vfs::IoFlags) override { return Err(EISDIR); }
  Result<size_t> PRead(IoSequence&, uint64_t, vfs::IoFlags) override { return Err(EISDIR); }
  Result<> Getdents(vfs::DirentSink& sink) override;

 private:
  Result<> Load();

  const RefPtr<GoferInode> inode_;
  std::vector<p9::DirectoryEntry> entries_;  // under offset_lock()
  bool loaded_ = false;
};

}  // namespace redoubt::goferfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_GOFER_DESCRIPTION_H_
