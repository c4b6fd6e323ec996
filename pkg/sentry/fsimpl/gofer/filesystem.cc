#include "pkg/sentry/fsimpl/gofer/filesystem.h"

#include <cstring>

#include "pkg/sentry/fsimpl/gofer/gofer.h"
#include "pkg/sentry/fsimpl/gofer/inode.h"

namespace redoubt::goferfs {

Result<RefPtr<vfs::Filesystem>> Create(RefPtr<p9::Client> client, pgalloc::MemoryFile& memory_file, Access access) {
  RefPtr<GoferFilesystem> fs = MakeRef<GoferFilesystem>(std::move(client), memory_file, access);
  TRY(fs->Init());
  return RefPtr<vfs::Filesystem>(std::move(fs));
}

Result<> GoferFilesystem::Init() {
  RefPtr<p9::File> file = TRY(client_->Attach());
  p9::Attributes attributes = TRY(file->GetAttributes());
  root_ = InodeFor(std::move(file), attributes);
  return {};
}

RefPtr<vfs::Inode> GoferFilesystem::root() { return root_; }

Result<struct statfs> GoferFilesystem::Statfs() {
  p9::Statfs s = TRY(root_->file().GetStatfs());
  struct statfs out;
  std::memset(&out, 0, sizeof(out));
  out.f_type = s.type;
  out.f_bsize = s.bsize;
  out.f_frsize = s.bsize;
  out.f_blocks = s.blocks;
  out.f_bfree = s.bfree;
  out.f_bavail = s.bavail;
  out.f_files = s.files;
  out.f_ffree = s.ffree;
  out.f_namelen = s.namelen;
  return out;
}

RefPtr<GoferInode> GoferFilesystem::FindLocked(const p9::Attributes& attributes) {
  auto it = inodes_.find(attributes.qid.path);
  // The number of a deleted file may be used again by one of another type.
  if (it == inodes_.end() || it->second->type() != (attributes.mode & S_IFMT) || !it->second->TryIncRef())
    return nullptr;
  return RefPtr<GoferInode>::Adopt(it->second);
}

RefPtr<GoferInode> GoferFilesystem::InodeFor(RefPtr<p9::File> file, const p9::Attributes& attributes) {
  {
    sync::MutexLock lock(mu_);
    if (RefPtr<GoferInode> inode = FindLocked(attributes); inode) return inode;
  }
  // Made, and if another lookup was faster dropped, without the lock: both take locks of their own.
  RefPtr<GoferInode> fresh = MakeRef<GoferInode>(*this, std::move(file), attributes);
  RefPtr<GoferInode> other;
  {
    sync::MutexLock lock(mu_);
    other = FindLocked(attributes);
    if (!other) inodes_[attributes.qid.path] = fresh.get();
  }
  return other ? other : fresh;
}

void GoferFilesystem::Forget(uint64_t path, GoferInode* inode) {
  sync::MutexLock lock(mu_);
  auto it = inodes_.find(path);
  if (it != inodes_.end() && it->second == inode) inodes_.erase(it);
  IdleHook& hook = *inode;
  if (hook.is_linked()) idle_.erase(idle_.iterator_to(hook));
}

void GoferFilesystem::FileIdle(GoferInode& inode) {
  RefPtr<GoferInode> longest;
  {
    sync::MutexLock lock(mu_);
    IdleHook& hook = inode;
    if (hook.is_linked()) idle_.erase(idle_.iterator_to(hook));
    idle_.push_back(hook);
    if (idle_.size() <= kMaxIdle) return;
    auto& oldest = static_cast<GoferInode&>(idle_.front());
    idle_.pop_front();
    // One that is dying gives its files back by itself.
    if (!oldest.TryIncRef()) return;
    longest = RefPtr<GoferInode>::Adopt(&oldest);
  }
  // Without the lock: it sends a message, and may be the last reference.
  longest->CloseIdleFiles();
}

RefPtr<RefCounted> GoferFilesystem::BoundSocket(uint64_t path) {
  sync::MutexLock lock(mu_);
  auto it = sockets_.find(path);
  return it != sockets_.end() ? it->second : nullptr;
}

void GoferFilesystem::SetBoundSocket(uint64_t path, RefPtr<RefCounted> socket) {
  sync::MutexLock lock(mu_);
  if (socket) {
    sockets_[path] = std::move(socket);
  } else {
    sockets_.erase(path);
  }
}

}  // namespace redoubt::goferfs
