#include "pkg/sentry/fsimpl/tmpfs/node.h"

#include <linux/capability.h>
#include <linux/xattr.h>

#include <utility>

#include "pkg/sentry/vfs/special_nodes.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::tmpfs {

Node::Node(TmpfsFilesystem& fs, const vfs::NewInode& n, uint32_t nlink)
    : Inode(fs),
      fs_(fs),
      ino_(fs.NextIno()),
      type_(n.mode & S_IFMT),
      rdev_(n.rdev),
      mode_(n.mode & 07777),
      uid_(n.uid),
      gid_(n.gid),
      nlink_(nlink),
      atime_(clock::Realtime()),
      mtime_(atime_),
      ctime_(atime_),
      btime_(atime_) {}

Node::~Node() {
  fs_.UnchargeInode();
  sync::MutexLock lock(mu_);
  if (xattrs_) fs_.UnchargeXattrs(XattrBytesLocked());
}

size_t Node::XattrBytesLocked() const {
  size_t total = 0;
  for (const auto& [name, value] : *xattrs_) total += name.size() + value.size();
  return total;
}

Result<vfs::Attributes> Node::GetAttributes() {
  const Size size = GetSize();
  sync::MutexLock lock(mu_);
  return vfs::Attributes{.mode = type_ | mode_,
                         .uid = uid_,
                         .gid = gid_,
                         .nlink = nlink_,
                         .ino = ino_,
                         .dev = fs_.dev(),
                         .rdev = rdev_,
                         .size = size.size,
                         .blocks = size.blocks,
                         .atime = atime_,
                         .mtime = mtime_,
                         .ctime = ctime_,
                         .btime = btime_};
}

Result<> Node::SetAttributes(const vfs::AttributeChange& change) {
  if (change.size) return Err(type_ == S_IFDIR ? EISDIR : EINVAL);
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  if (change.mode) mode_ = *change.mode & 07777;
  if (change.uid) uid_ = *change.uid;
  if (change.gid) gid_ = *change.gid;
  if (change.atime) atime_ = *change.atime;
  if (change.mtime) mtime_ = *change.mtime;
  ctime_ = now;
  return {};
}

uint32_t Node::nlink() const {
  sync::MutexLock lock(mu_);
  return nlink_;
}

void Node::ChangeLinks(int delta) {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  nlink_ = static_cast<uint32_t>(static_cast<int64_t>(nlink_) + delta);
  ctime_ = now;
}

Result<> Node::AddLink() {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  if (nlink_ == 0 && !may_get_first_link_) return Err(ENOENT);
  if (nlink_ == UINT32_MAX) return Err(EMLINK);
  may_get_first_link_ = false;
  nlink_++;
  ctime_ = now;
  return {};
}

void Node::AllowFirstLink() {
  sync::MutexLock lock(mu_);
  may_get_first_link_ = true;
}

void Node::TouchModified() {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  mtime_ = ctime_ = now;
}

void Node::TouchChanged() {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  ctime_ = now;
}

void Node::TouchAccessed(const vfs::Path& path, int open_flags) {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  vfs::Attributes times{.mode = type_, .atime = atime_, .mtime = mtime_, .ctime = ctime_};
  if (vfs::ShouldUpdateAtime(path, open_flags, times, now)) atime_ = now;
}

void Node::Written() {
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  mtime_ = ctime_ = now;
  const bool set_id = (mode_ & S_ISUID) || (mode_ & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
  if (set_id && !vfs::CurrentIsCapable(CAP_FSETID)) {
    mode_ &= ~uint32_t{S_ISUID};
    if (mode_ & S_IXGRP) mode_ &= ~uint32_t{S_ISGID};
  }
}

Result<std::string> Node::GetXattr(std::string_view name) {
  if (name.starts_with(XATTR_SYSTEM_PREFIX)) return Err(EOPNOTSUPP);
  sync::MutexLock lock(mu_);
  if (!xattrs_) return Err(ENODATA);
  auto it = xattrs_->find(name);
  if (it == xattrs_->end()) return Err(ENODATA);
  return it->second;
}

Result<> Node::SetXattr(std::string_view name, std::string_view value, int flags) {
  if (name.starts_with(XATTR_SYSTEM_PREFIX)) return Err(EOPNOTSUPP);
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  if (!xattrs_) xattrs_ = std::make_unique<Xattrs>();
  auto it = xattrs_->find(name);
  if (it != xattrs_->end() && (flags & XATTR_CREATE)) return Err(EEXIST);
  if (it == xattrs_->end() && (flags & XATTR_REPLACE)) return Err(ENODATA);
  const size_t before = it != xattrs_->end() ? name.size() + it->second.size() : 0;
  const size_t after = name.size() + value.size();
  if (XattrBytesLocked() - before + after > kMaxXattrBytes) return Err(ENOSPC);
  TRY(fs_.ChargeXattrs(after));
  fs_.UnchargeXattrs(before);
  if (it != xattrs_->end()) {
    it->second = value;
  } else {
    xattrs_->emplace(name, value);
  }
  ctime_ = now;
  return {};
}

Result<> Node::RemoveXattr(std::string_view name) {
  if (name.starts_with(XATTR_SYSTEM_PREFIX)) return Err(EOPNOTSUPP);
  const clock::Nanoseconds now = clock::Realtime();
  sync::MutexLock lock(mu_);
  if (!xattrs_) return Err(ENODATA);
  auto it = xattrs_->find(name);
  if (it == xattrs_->end()) return Err(ENODATA);
  fs_.UnchargeXattrs(name.size() + it->second.size());
  xattrs_->erase(it);
  ctime_ = now;
  return {};
}

Result<std::vector<std::string>> Node::ListXattr() {
  std::vector<std::string> names;
  sync::MutexLock lock(mu_);
  if (xattrs_) {
    for (const auto& [name, value] : *xattrs_) names.push_back(name);
  }
  return names;
}

}  // namespace redoubt::tmpfs
