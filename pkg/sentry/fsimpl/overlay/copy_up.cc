// Copying a file of the lower layer to the upper one.

#include <algorithm>
#include <utility>

#include "pkg/sentry/fsimpl/copy/copy.h"
#include "pkg/sentry/fsimpl/overlay/inode.h"

namespace redoubt::overlay {

Result<> OverlayInode::CopyContents(vfs::Inode& twin, const vfs::Attributes& attrs, uint64_t data_limit) {
  if (type_ == S_IFREG) TRY(copy::Data(*lower_, twin, std::min(attrs.size, data_limit)));
  if (type_ == S_IFSOCK) {
    if (Result<RefPtr<RefCounted>> socket = lower_->bound_socket()) TRY(twin.set_bound_socket(*std::move(socket)));
  }
  TRY(copy::Xattrs(*lower_, twin));
  // Last: writing has changed the times, and perhaps set-ID bits.
  vfs::AttributeChange change;
  if (type_ != S_IFLNK) change.mode = attrs.mode & 07777;
  change.atime = attrs.atime;
  change.mtime = attrs.mtime;
  return twin.SetAttributes(change);
}

Result<> OverlayInode::RemoveFromWork(vfs::Inode& twin) {
  return IsDirectory() ? fs().work().Rmdir(WorkName(), twin) : fs().work().Unlink(WorkName(), twin);
}

Result<vfs::Inode*> OverlayInode::CopyUp(uint64_t data_limit) {
  if (vfs::Inode* up = upper()) return up;
  fiber::MutexLock lock(copy_mu_);
  if (vfs::Inode* up = upper()) return up;
  const vfs::Attributes attrs = TRY(lower_->GetAttributes());
  const vfs::NewInode n{.mode = attrs.mode, .uid = attrs.uid, .gid = attrs.gid, .rdev = attrs.rdev};
  work_id_ = fs().NextWorkId();
  vfs::Inode& work = fs().work();
  RefPtr<vfs::Inode> twin;
  if (type_ == S_IFDIR) {
    twin = TRY(work.Mkdir(WorkName(), n));
  } else if (type_ == S_IFLNK) {
    std::string target = TRY(lower_->Readlink());
    twin = TRY(work.Symlink(WorkName(), target, n));
  } else {
    twin = TRY(work.Create(WorkName(), n));
  }
  Result<> copied = CopyContents(*twin, attrs, data_limit);
  Result<vfs::Attributes> twin_attrs = twin->GetAttributes();
  if (copied && !twin_attrs) copied = Err(twin_attrs.error());
  if (!copied) {
    (void)RemoveFromWork(*twin);
    return Err(copied.error());
  }
  SetOrigin(attrs.ino, attrs.nlink, twin_attrs->ino);
  bool named;
  {
    sync::MutexLock fields(mu_);
    named = IsDirectory() ? !removed_ : LowerNamesLocked() > 0;
    in_work_ = named;
  }
  // Opened before its last name went: the copy lives as long as the description.
  if (!named) (void)RemoveFromWork(*twin);
  upper_ref_ = twin;
  fs().AddUpper(*this, *twin, twin_attrs->ino, attrs.ino);
  upper_.store(twin.get(), std::memory_order_release);
  if (named) fs().Pin(*this);
  return twin.get();
}

}  // namespace redoubt::overlay
