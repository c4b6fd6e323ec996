// Metadata and directories.
#include "pkg/sentry/fsimpl/gofer/inode.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <algorithm>
#include <limits>

#include "pkg/sentry/fsimpl/gofer/description.h"
#include "pkg/sentry/vfs/special_nodes.h"

namespace redoubt::goferfs {
namespace {

// How long attributes are believed.
constexpr fiber::Time kAttributeLifetime = 1'000'000'000;
constexpr fiber::Time kForever = std::numeric_limits<fiber::Time>::max();

clock::Nanoseconds ToNanoseconds(uint64_t sec, uint64_t nsec) {
  return clock::FromTimespec({.tv_sec = static_cast<time_t>(sec), .tv_nsec = static_cast<long>(nsec % 1'000'000'000)});
}

}  // namespace

GoferInode::GoferInode(GoferFilesystem& fs, RefPtr<p9::File> file, const p9::Attributes& attributes)
    : Inode(fs), file_(std::move(file)), type_(attributes.mode & S_IFMT), path_(attributes.qid.path) {
  sync::MutexLock lock(attr_mu_);
  Adopt(attributes);
  sync::MutexLock data_lock(data_mu_);
  size_ = attributes.size;
}

GoferInode::~GoferInode() {
  gofer().Forget(path_, this);
  (void)WriteBack();
  sync::MutexLock lock(data_mu_);
  for (memmap::FileRange r : pages_.Remove(0, UINT64_MAX)) gofer().memory_file().DecRef(r);
}

void GoferInode::Adopt(const p9::Attributes& a) {
  attributes_.mode = type_ | (a.mode & 07777);
  attributes_.uid = a.uid;
  attributes_.gid = a.gid;
  attributes_.nlink = static_cast<uint32_t>(a.nlink);
  attributes_.ino = a.qid.path;
  attributes_.dev = filesystem().dev();
  attributes_.rdev = a.rdev;
  attributes_.size = a.size;
  attributes_.blocks = a.blocks;
  attributes_.blksize = static_cast<uint32_t>(std::clamp<uint64_t>(a.blksize, 512, 1 << 20));
  attributes_.atime = ToNanoseconds(a.atime_sec, a.atime_nsec);
  attributes_.mtime = ToNanoseconds(a.mtime_sec, a.mtime_nsec);
  attributes_.ctime = ToNanoseconds(a.ctime_sec, a.ctime_nsec);
  attributes_.btime = (a.valid & p9::kGetattrBtime) != 0 ? ToNanoseconds(a.btime_sec, a.btime_nsec) : 0;
  server_size_ = a.size;
  server_mtime_ = attributes_.mtime;
  fresh_until_ = gofer().exclusive() ? kForever : fiber::Now() + kAttributeLifetime;
}

void GoferInode::ExpireAttributes() {
  sync::MutexLock lock(attr_mu_);
  fresh_until_ = 0;
  own_change_ = true;
}

void GoferInode::Update(const p9::Attributes& a) {
  bool changed_by_others = false;
  {
    sync::MutexLock lock(attr_mu_);
    clock::Nanoseconds old_mtime = server_mtime_;
    uint64_t old_size = server_size_;
    Adopt(a);
    changed_by_others = !own_change_ && type_ == S_IFREG && (old_mtime != server_mtime_ || old_size != server_size_);
    own_change_ = false;
  }
  if (changed_by_others) {
    {
      sync::MutexLock lock(data_mu_);
      size_ = a.size;
    }
    DropPages(0, PageRoundDown(UINT64_MAX));
  }
}

Result<> GoferInode::Refresh() {
  Update(TRY(file_->GetAttributes()));
  return {};
}

bool GoferInode::IsFresh() {
  const fiber::Time now = fiber::Now();
  sync::MutexLock lock(attr_mu_);
  return now < fresh_until_;
}

fiber::Time GoferInode::lookup_lifetime() const { return kAttributeLifetime; }

Result<vfs::Attributes> GoferInode::GetAttributes() {
  vfs::Attributes attributes;
  const fiber::Time now = fiber::Now();
  // Believed as they come back, even if that took long.
  for (bool asked = false;; asked = true) {
    {
      sync::MutexLock lock(attr_mu_);
      if (asked || now < fresh_until_) {
        attributes = attributes_;
        break;
      }
    }
    TRY(Refresh());
  }
  if (type_ == S_IFREG) {
    sync::MutexLock lock(data_mu_);
    attributes.size = size_;
  }
  return attributes;
}

Result<> GoferInode::SetAttributes(const vfs::AttributeChange& change) {
  p9::SetAttributes s;
  if (change.mode) {
    s.valid |= p9::kSetMode;
    s.mode = *change.mode;
  }
  if (change.uid) {
    s.valid |= p9::kSetUid;
    s.uid = *change.uid;
  }
  if (change.gid) {
    s.valid |= p9::kSetGid;
    s.gid = *change.gid;
  }
  if (change.size) {
    s.valid |= p9::kSetSize;
    s.size = *change.size;
  }
  auto set_time = [](clock::Nanoseconds ns, uint64_t& sec, uint64_t& nsec) {
    timespec ts = clock::ToTimespec(ns);
    sec = static_cast<uint64_t>(ts.tv_sec);
    nsec = static_cast<uint64_t>(ts.tv_nsec);
  };
  if (change.atime) {
    s.valid |= p9::kSetAtime | p9::kSetAtimeSet;
    set_time(*change.atime, s.atime_sec, s.atime_nsec);
  }
  if (change.mtime) {
    s.valid |= p9::kSetMtime | p9::kSetMtimeSet;
    set_time(*change.mtime, s.mtime_sec, s.mtime_nsec);
  }
  fiber::MutexLock io_lock(io_mu_);
  if (change.size) TRY(WriteBackLocked());
  ExpireAttributes();
  TRY(file_->SetAttributes(s));
  if (change.size) {
    uint64_t old_size = 0;
    {
      sync::MutexLock lock(data_mu_);
      old_size = std::exchange(size_, *change.size);
    }
    if (*change.size < old_size) DropPages(*change.size, PageRoundDown(UINT64_MAX));
  }
  ExpireAttributes();
  return {};
}

Result<RefPtr<vfs::Inode>> GoferInode::Lookup(std::string_view name) {
  p9::File::Found found = TRY(file_->WalkGetAttributes({std::string(name)}));
  RefPtr<GoferInode> inode = gofer().InodeFor(std::move(found.file), found.attributes);
  inode->Update(found.attributes);
  return RefPtr<vfs::Inode>(std::move(inode));
}

Result<RefPtr<vfs::Inode>> GoferInode::LookupAgain(std::string_view name, vfs::Inode& known) {
  auto& inode = static_cast<GoferInode&>(known);
  p9::Attributes attributes = TRY(file_->GetAttributesOf({std::string(name)}));
  if (attributes.qid.path != inode.path_ || (attributes.mode & S_IFMT) != inode.type_) return Lookup(name);
  inode.Update(attributes);
  return RefPtr<vfs::Inode>(&inode);
}

// What a create call has made, with its owner.
Result<RefPtr<GoferInode>> GoferInode::Created(std::string_view name, const vfs::NewInode& n, bool set_mode) {
  ExpireAttributes();
  p9::File::Found found = TRY(file_->WalkGetAttributes({std::string(name)}));
  const p9::Attributes& a = found.attributes;
  const uint32_t type = a.mode & S_IFMT;
  // Mostly it is as wanted already.
  if (a.uid != n.uid || a.gid != n.gid || (set_mode && (a.mode & 07777) != (n.mode & 07777))) {
    p9::SetAttributes s{.valid = p9::kSetUid | p9::kSetGid, .uid = n.uid, .gid = n.gid};
    if (set_mode) {
      s.valid |= p9::kSetMode;
      s.mode = n.mode & 07777;
    }
    if (Result<> given = found.file->SetAttributes(s); !given) {
      // It must not stay as somebody else's; best effort, as the directory may have changed.
      (void)file_->UnlinkAt(name, type == S_IFDIR ? AT_REMOVEDIR : 0);
      return Err(given.error());
    }
    found.attributes = TRY(found.file->GetAttributes());
  }
  return gofer().InodeFor(std::move(found.file), found.attributes);
}

Result<RefPtr<vfs::Inode>> GoferInode::Create(std::string_view name, const vfs::NewInode& n) {
  uint32_t type = n.mode & S_IFMT;
  if (type != S_IFREG) {
    (void)TRY(file_->Mknod(name, n.mode, major(n.rdev), minor(n.rdev), n.gid));
    return Created(name, n, true);
  }
  RefPtr<p9::File> file = TRY(file_->Walk({}));
  TRY(file->Create(name, O_RDWR, n.mode & 07777, n.gid));
  RefPtr<GoferInode> inode = TRY(Created(name, n, true));
  if (n.opened_next) {
    fiber::MutexLock lock(inode->io_mu_);
    if (!inode->write_file_) {
      inode->write_file_ = std::move(file);
      inode->has_write_file_.store(true);
    }
  }
  return RefPtr<vfs::Inode>(std::move(inode));
}

Result<RefPtr<vfs::Inode>> GoferInode::Mkdir(std::string_view name, const vfs::NewInode& n) {
  (void)TRY(file_->Mkdir(name, n.mode & 07777, n.gid));
  return Created(name, n, true);
}

Result<RefPtr<vfs::Inode>> GoferInode::Symlink(std::string_view name, std::string_view target, const vfs::NewInode& n) {
  (void)TRY(file_->Symlink(name, target, n.gid));
  return Created(name, n, false);
}

Result<> GoferInode::Link(std::string_view name, vfs::Inode& target) {
  auto& inode = static_cast<GoferInode&>(target);
  TRY(file_->Link(name, *inode.file_));
  inode.ExpireAttributes();
  ExpireAttributes();
  return {};
}

Result<> GoferInode::Unlink(std::string_view name, vfs::Inode& child) {
  auto& inode = static_cast<GoferInode&>(child);
  // The host keeps the contents for as long as they are open; what is due to be closed goes with the message.
  if (inode.has_read_file_.load()) inode.CloseIdleFiles();
  TRY(file_->UnlinkAt(name, 0));
  inode.ExpireAttributes();
  ExpireAttributes();
  if (inode.type_ == S_IFSOCK) gofer().SetBoundSocket(inode.path_, nullptr);
  return {};
}

Result<> GoferInode::Rmdir(std::string_view name, vfs::Inode& child) {
  TRY(file_->UnlinkAt(name, AT_REMOVEDIR));
  static_cast<GoferInode&>(child).ExpireAttributes();
  ExpireAttributes();
  return {};
}

Result<> GoferInode::Rename(std::string_view old_name, vfs::Inode& child, vfs::Inode& new_parent,
                            std::string_view new_name, vfs::Inode* replaced, uint32_t flags) {
  // 9P has no flags; the VFS holds both directories and has looked for what RENAME_NOREPLACE forbids.
  if ((flags & ~static_cast<uint32_t>(RENAME_NOREPLACE)) != 0) return Err(EINVAL);
  auto& to = static_cast<GoferInode&>(new_parent);
  TRY(file_->RenameAt(old_name, *to.file_, new_name));
  for (GoferInode* inode : {this, &to, &static_cast<GoferInode&>(child), static_cast<GoferInode*>(replaced)}) {
    if (inode != nullptr) inode->ExpireAttributes();
  }
  return {};
}

Result<std::string> GoferInode::Readlink() {
  if (type_ != S_IFLNK) return Err(EINVAL);
  {
    sync::MutexLock lock(attr_mu_);
    if (!link_.empty()) return link_;
  }
  std::string link = TRY(file_->Readlink());
  sync::MutexLock lock(attr_mu_);
  link_ = link;
  return link;
}

Result<RefPtr<vfs::FileDescription>> GoferInode::Open(const vfs::Path& path, int flags) {
  switch (type_) {
    case S_IFREG:
      TRY(PrepareOpen((flags & O_ACCMODE) != O_RDONLY));
      return RefPtr<vfs::FileDescription>(MakeRef<RegularDescription>(RefPtr<GoferInode>(this), path, flags));
    case S_IFDIR:
      return RefPtr<vfs::FileDescription>(MakeRef<DirectoryDescription>(RefPtr<GoferInode>(this), path, flags));
    case S_IFLNK:
      return Err(ELOOP);
    default: {
      vfs::Attributes attributes = TRY(GetAttributes());
      return vfs::OpenSpecialNode(*this, path, attributes.rdev, flags);
    }
  }
}

Result<std::string> GoferInode::GetXattr(std::string_view name) {
  if (type_ != S_IFREG && type_ != S_IFDIR) return Err(ENODATA);
  return file_->GetXattr(name);
}

Result<> GoferInode::SetXattr(std::string_view name, std::string_view value, int flags) {
  return file_->SetXattr(name, value, static_cast<uint32_t>(flags));
}

Result<> GoferInode::RemoveXattr(std::string_view name) {
  // 9P has no message for it: an empty value that replaces (as Linux's client does).
  return file_->SetXattr(name, {}, XATTR_REPLACE);
}

Result<std::vector<std::string>> GoferInode::ListXattr() {
  if (type_ != S_IFREG && type_ != S_IFDIR) return std::vector<std::string>{};
  return file_->ListXattr();
}

Result<RefPtr<RefCounted>> GoferInode::bound_socket() {
  RefPtr<RefCounted> socket = gofer().BoundSocket(path_);
  if (!socket) return Err(ECONNREFUSED);
  return socket;
}

Result<> GoferInode::set_bound_socket(RefPtr<RefCounted> socket) {
  gofer().SetBoundSocket(path_, std::move(socket));
  return {};
}

}  // namespace redoubt::goferfs
