#include "pkg/sentry/fsimpl/overlay/filesystem.h"

#include <linux/magic.h>

#include <utility>

#include "pkg/sentry/fsimpl/overlay/inode.h"
#include "pkg/sentry/fsimpl/overlay/overlay.h"

namespace redoubt::overlay {

Result<RefPtr<vfs::Filesystem>> Create(RefPtr<vfs::Filesystem> upper, RefPtr<vfs::Filesystem> lower) {
  RefPtr<OverlayFilesystem> fs = MakeRef<OverlayFilesystem>(std::move(upper), std::move(lower));
  TRY(fs->Init());
  return RefPtr<vfs::Filesystem>(std::move(fs));
}

OverlayFilesystem::OverlayFilesystem(RefPtr<vfs::Filesystem> upper, RefPtr<vfs::Filesystem> lower)
    : upper_(std::move(upper)), lower_(std::move(lower)) {}

OverlayFilesystem::~OverlayFilesystem() {
  std::unordered_map<OverlayInode*, RefPtr<OverlayInode>> pinned;
  RefPtr<OverlayInode> root;
  sync::MutexLock lock(mu_);
  // Unlocked for their end, in which they take themselves out of nodes_.
  pinned.swap(pinned_);
  root = std::move(root_);
  mu_.Unlock();
  pinned.clear();
  root.reset();
  mu_.Lock();
}

Result<> OverlayFilesystem::Init() {
  upper_root_ = upper_->root();
  RefPtr<vfs::Inode> lower_root = lower_->root();
  if (!upper_root_ || !lower_root || !upper_root_->IsDirectory() || !lower_root->IsDirectory()) return Err(ENOTDIR);
  vfs::Attributes attrs = TRY(lower_root->GetAttributes());
  constexpr std::string_view kWorkName = "#work";
  if (upper_root_->Lookup(kWorkName)) return Err(EEXIST);
  work_ = TRY(upper_root_->Mkdir(kWorkName, {.mode = S_IFDIR | 0700}));
  // Nobody but this file system reaches it any more.
  TRY(upper_root_->Rmdir(kWorkName, *work_));
  vfs::AttributeChange change{.mode = attrs.mode & 07777, .uid = attrs.uid, .gid = attrs.gid};
  change.atime = attrs.atime;
  change.mtime = attrs.mtime;
  TRY(upper_root_->SetAttributes(change));
  vfs::Attributes upper_attrs = TRY(upper_root_->GetAttributes());
  RefPtr<OverlayInode> root = MakeRef<OverlayInode>(*this, upper_root_, lower_root);
  root->SetOrigin(attrs.ino, attrs.nlink, upper_attrs.ino);
  AddUpper(*root, *upper_root_, upper_attrs.ino, attrs.ino);
  sync::MutexLock lock(mu_);
  nodes_[lower_root.get()] = root.get();
  root_ = std::move(root);
  return {};
}

RefPtr<vfs::Inode> OverlayFilesystem::root() {
  sync::MutexLock lock(mu_);
  return root_;
}

Result<struct statfs> OverlayFilesystem::Statfs() {
  struct statfs result = TRY(upper_->Statfs());
  result.f_type = OVERLAYFS_SUPER_MAGIC;
  return result;
}

void OverlayFilesystem::Unmounted() {
  upper_->Unmounted();
  lower_->Unmounted();
}

RefPtr<OverlayInode> OverlayFilesystem::NodeFor(RefPtr<vfs::Inode> real, Layer layer) {
  sync::MutexLock lock(mu_);
  OverlayInode*& slot = nodes_[real.get()];
  // One that is dying takes itself out later, if it is still there.
  if (slot != nullptr && slot->TryIncRef()) return RefPtr<OverlayInode>::Adopt(slot);
  RefPtr<OverlayInode> node = layer == Layer::kUpper ? MakeRef<OverlayInode>(*this, std::move(real), nullptr)
                                                     : MakeRef<OverlayInode>(*this, nullptr, std::move(real));
  slot = node.get();
  return node;
}

void OverlayFilesystem::AddUpper(OverlayInode& node, vfs::Inode& upper, uint64_t upper_ino, uint64_t ino) {
  sync::MutexLock lock(mu_);
  nodes_[&upper] = &node;
  copied_inos_[upper_ino] = ino;
}

void OverlayFilesystem::Pin(OverlayInode& node) {
  RefPtr<OverlayInode> ref(&node);
  sync::MutexLock lock(mu_);
  pinned_.try_emplace(&node, std::move(ref));
}

void OverlayFilesystem::Unpin(OverlayInode& node) {
  RefPtr<OverlayInode> dropped;  // after the lock
  sync::MutexLock lock(mu_);
  auto it = pinned_.find(&node);
  if (it == pinned_.end()) return;
  dropped = std::move(it->second);
  pinned_.erase(it);
}

void OverlayFilesystem::Forget(OverlayInode& node, vfs::Inode* upper, uint64_t upper_ino, vfs::Inode* lower) {
  sync::MutexLock lock(mu_);
  for (vfs::Inode* real : {upper, lower}) {
    auto it = real != nullptr ? nodes_.find(real) : nodes_.end();
    if (it != nodes_.end() && it->second == &node) nodes_.erase(it);
  }
  if (upper != nullptr && lower != nullptr) copied_inos_.erase(upper_ino);
}

void OverlayFilesystem::TranslateUpperInos(std::vector<uint64_t*>& inos) {
  sync::MutexLock lock(mu_);
  for (uint64_t* ino : inos) {
    auto it = copied_inos_.find(*ino);
    *ino = it != copied_inos_.end() ? it->second : UpperIno(*ino);
  }
}

}  // namespace redoubt::overlay
