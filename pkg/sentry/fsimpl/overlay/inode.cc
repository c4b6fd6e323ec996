#include "pkg/sentry/fsimpl/overlay/inode.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "pkg/sentry/fsimpl/overlay/description.h"
#include "pkg/sentry/vfs/special_nodes.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::overlay {

OverlayInode::OverlayInode(OverlayFilesystem& fs, RefPtr<vfs::Inode> upper, RefPtr<vfs::Inode> lower)
    : Inode(fs),
      type_(upper ? upper->type() : lower->type()),
      lower_(std::move(lower)),
      upper_ref_(std::move(upper)),
      upper_(upper_ref_.get()) {}

OverlayInode::~OverlayInode() { fs().Forget(*this, upper(), upper_ino_, lower_.get()); }

void OverlayInode::SetOrigin(uint64_t lower_ino, uint32_t lower_nlink, uint64_t upper_ino) {
  lower_ino_ = lower_ino;
  lower_nlink_ = lower_nlink;
  upper_ino_ = upper_ino;
}

uint32_t OverlayInode::LowerNamesLocked() const { return lower_nlink_ - std::min(lower_nlink_, hidden_links_); }

Result<vfs::Attributes> OverlayInode::GetAttributes() {
  vfs::Inode* const up = upper();
  vfs::Attributes attrs = TRY(up != nullptr ? up->GetAttributes() : lower_->GetAttributes());
  attrs.dev = filesystem().dev();
  if (!lower_) {
    attrs.ino = OverlayFilesystem::UpperIno(attrs.ino);
    return attrs;
  }
  sync::MutexLock lock(mu_);
  if (up != nullptr) attrs.ino = lower_ino_;
  if (IsDirectory()) {
    // A merged directory's count of subdirectories is not known; 1 says so to programs that use it.
    if (removed_) {
      attrs.nlink = 0;
    } else if (up != nullptr) {
      attrs.nlink = 1;
    }
  } else if (up != nullptr) {
    attrs.nlink = LowerNamesLocked() + attrs.nlink - (in_work_ ? 1 : 0);
  } else {
    attrs.nlink -= std::min(attrs.nlink, hidden_links_);
  }
  return attrs;
}

Result<> OverlayInode::SetAttributes(const vfs::AttributeChange& change) {
  vfs::Inode* up = TRY(CopyUp(change.size.value_or(UINT64_MAX)));
  return up->SetAttributes(change);
}

Result<> OverlayInode::SetXattr(std::string_view name, std::string_view value, int flags) {
  vfs::Inode* up = TRY(CopyUp());
  return up->SetXattr(name, value, flags);
}

Result<> OverlayInode::RemoveXattr(std::string_view name) {
  if (upper() == nullptr) TRY(lower_->GetXattr(name));  // nothing to remove, nothing to copy
  vfs::Inode* up = TRY(CopyUp());
  return up->RemoveXattr(name);
}

Result<> OverlayInode::set_bound_socket(RefPtr<RefCounted> socket) {
  vfs::Inode* up = TRY(CopyUp());
  return up->set_bound_socket(std::move(socket));
}

Result<RefPtr<vfs::FileDescription>> OverlayInode::Open(const vfs::Path& path, int flags) {
  switch (type_) {
    case S_IFREG: {
      const bool truncates = flags & O_TRUNC;
      flags &= ~O_TRUNC;
      // The fourth access mode neither reads nor writes.
      const int access = flags & O_ACCMODE;
      if (truncates || access == O_WRONLY || access == O_RDWR) {
        vfs::Inode* up = TRY(CopyUp(truncates ? 0 : UINT64_MAX));
        return up->Open(path, flags);
      }
      if (vfs::Inode* up = upper()) return up->Open(path, flags);
      RefPtr<vfs::FileDescription> file = TRY(lower_->Open(path, flags | vfs::kOpenUntold));
      return RefPtr<vfs::FileDescription>(
          MakeRef<LowerFileDescription>(RefPtr<OverlayInode>(this), std::move(file), path, flags));
    }
    case S_IFDIR:
      return RefPtr<vfs::FileDescription>(MakeRef<DirectoryDescription>(RefPtr<OverlayInode>(this), path, flags));
    case S_IFLNK:
      return Err(ELOOP);
    default: {
      vfs::Attributes attrs = TRY(GetAttributes());
      return vfs::OpenSpecialNode(*this, path, attrs.rdev, flags);
    }
  }
}

}  // namespace redoubt::overlay
