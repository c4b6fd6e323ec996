#include "pkg/sentry/fsimpl/overlay/description.h"

#include <dirent.h>
#include <unistd.h>

#include "pkg/sentry/vfs/dentry.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::overlay {

Result<RefPtr<vfs::FileDescription>> LowerFileDescription::Real() {
  vfs::Inode* up = inode_->upper();
  if (up == nullptr) return lower_;
  {
    sync::MutexLock lock(mu_);
    if (upper_) return upper_;
  }
  RefPtr<vfs::FileDescription> opened = TRY(up->Open(path(), flags() | vfs::kOpenUntold));
  sync::MutexLock lock(mu_);
  if (!upper_) upper_ = opened;
  return upper_;
}

Result<size_t> LowerFileDescription::PRead(IoSequence& dst, uint64_t offset, vfs::IoFlags flags) {
  if (inode_->upper() == nullptr) [[likely]]
    return lower_->PRead(dst, offset, flags);
  RefPtr<vfs::FileDescription> real = TRY(Real());
  return real->PRead(dst, offset, flags);
}

Result<uint64_t> LowerFileDescription::Seek(int64_t offset, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return FileDescription::Seek(offset, whence);
  RefPtr<vfs::FileDescription> real = TRY(Real());
  uint64_t at = TRY(real->Seek(offset, whence));
  fiber::MutexLock lock(offset_lock());
  set_offset(at);
  return at;
}

Result<> LowerFileDescription::Sync(bool data_only) {
  RefPtr<vfs::FileDescription> real = TRY(Real());
  return real->Sync(data_only);
}

Result<> LowerFileDescription::ConfigureMMap(mm::MMapOptions& options) {
  RefPtr<vfs::FileDescription> real = TRY(Real());
  return real->ConfigureMMap(options);
}

Result<uint64_t> DirectoryDescription::Seek(int64_t offset, int whence) {
  fiber::MutexLock lock(offset_lock());
  if (whence == SEEK_CUR) {
    if (__builtin_add_overflow(offset, static_cast<int64_t>(this->offset()), &offset)) return Err(EINVAL);
  } else if (whence != SEEK_SET) {
    return Err(EINVAL);
  }
  if (offset < 0) return Err(EINVAL);
  set_offset(static_cast<uint64_t>(offset));
  return static_cast<uint64_t>(offset);
}

Result<> DirectoryDescription::Getdents(vfs::DirentSink& sink) {
  if (path().dentry->deleted()) return Err(ENOENT);
  fiber::MutexLock lock(offset_lock());
  uint64_t at = offset();
  if (at == 0 || !loaded_) {
    entries_ = TRY(inode_->List());
    loaded_ = true;
  }
  if (at <= 1) {
    vfs::Attributes own = TRY(inode_->GetAttributes());
    if (at == 0) {
      if (!sink.Add(".", own.ino, DT_DIR, 1)) return {};
      set_offset(++at);
    }
    uint64_t parent_ino = own.ino;
    if (RefPtr<vfs::Dentry> parent = path().dentry->parent()) {
      vfs::Attributes attrs = TRY(parent->inode().GetAttributes());
      parent_ino = attrs.ino;
    }
    if (!sink.Add("..", parent_ino, DT_DIR, 2)) return {};
    set_offset(++at);
  }
  for (; at - 2 < entries_.size(); set_offset(++at)) {
    const DirectoryEntry& e = entries_[at - 2];
    if (!sink.Add(e.name, e.ino, e.type, static_cast<int64_t>(at + 1))) break;
  }
  return {};
}

}  // namespace redoubt::overlay
