#include "pkg/sentry/vfs/mount.h"

#include <algorithm>
#include <utility>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

namespace {
constinit sync::Mutex tree{sync::Rank::kMountNamespace};
constinit std::atomic<uint64_t> next_id{1};
constinit std::atomic<int64_t> count{0};
}  // namespace

sync::Mutex& Mount::Tree() { return tree; }

Mount::Mount(RefPtr<Filesystem> fs, RefPtr<Dentry> root, uint64_t ms_flags, std::string source)
    : id_(next_id.fetch_add(1, std::memory_order_relaxed)),
      fs_(std::move(fs)),
      root_(std::move(root)),
      source_(std::move(source)),
      flags_(ms_flags) {
  count.fetch_add(1, std::memory_order_relaxed);
  sync::MutexLock lock(tree);
  if (fs_->mounts_++ == 0 && !fs_->root_dentry_ && root_->kind() == DentryKind::kRoot) fs_->root_dentry_ = root_;
}

Mount::~Mount() {
  count.fetch_sub(1, std::memory_order_relaxed);
  RefPtr<Dentry> root;
  bool last = false;
  {
    sync::MutexLock lock(tree);
    last = --fs_->mounts_ == 0;
    if (last) root = std::move(fs_->root_dentry_);
  }
  if (!last) return;
  Watches::Unmounted(*fs_);
  DentryCache::Get().Purge(*fs_);
  fs_->Unmounted();
}

Result<> Mount::CheckRoom(size_t more) {
  const int64_t most = limits::System::Get().mount_max.load(std::memory_order_relaxed);
  if (count.load(std::memory_order_relaxed) + static_cast<int64_t>(more) > most) return Err(ENOSPC);
  return {};
}

RefPtr<Mount> Mount::Create(RefPtr<Filesystem> fs, uint64_t ms_flags, std::string source) {
  RefPtr<Dentry> root;
  {
    sync::MutexLock lock(tree);
    root = fs->root_dentry_;
  }
  if (!root) root = Dentry::MakeRoot(fs->root());
  return MakeRef<Mount>(std::move(fs), std::move(root), ms_flags, std::move(source));
}

RefPtr<Mount> Mount::Clone(RefPtr<Dentry> root) const { return MakeRef<Mount>(fs_, std::move(root), flags(), source_); }

RefPtr<Mount> Mount::parent() const {
  sync::MutexLock lock(tree);
  return parent_;
}

bool Mount::Up(Path* out) const {
  Path up;
  {
    sync::MutexLock lock(tree);
    if (!parent_) return false;
    up = Path(parent_, mountpoint_);
  }
  *out = std::move(up);
  return true;
}

Mount* Mount::ChildAtLocked(const Dentry& dentry) const {
  auto it = children_.find(&dentry);
  return it == children_.end() ? nullptr : it->second.get();
}

std::vector<Mount*> Mount::ChildrenLocked() const {
  std::vector<Mount*> children;
  children.reserve(children_.size());
  for (const auto& [dentry, mount] : children_) children.push_back(mount.get());
  std::ranges::sort(children, {}, &Mount::id);
  return children;
}

void Mount::AttachLocked(RefPtr<Mount> child, RefPtr<Dentry> at) {
  CHECK(!child->parent_ && !children_.contains(at.get()), "a mount attached twice");
  at->AddMount();
  child->parent_ = RefPtr<Mount>(this);
  const Dentry* key = at.get();
  child->mountpoint_ = std::move(at);
  children_.emplace(key, std::move(child));
}

Mount::Detached Mount::DetachLocked() {
  Detached d{.parent = std::move(parent_), .at = std::move(mountpoint_)};
  auto it = d.parent->children_.find(d.at.get());
  d.mount = std::move(it->second);
  d.parent->children_.erase(it);
  d.at->RemoveMount();
  return d;
}

bool Mount::IsAncestorOfLocked(const Mount& other) const {
  for (const Mount* m = &other; m != nullptr; m = m->parent_.get()) {
    if (m == this) return true;
  }
  return false;
}

void FollowMountsLocked(Path& path) {
  while (path.dentry->is_mountpoint()) {
    Mount* child = path.mount->ChildAtLocked(*path.dentry);
    if (child == nullptr) return;
    RefPtr<Mount> mount(child);
    RefPtr<Dentry> root = child->root();
    // The dentry left is kept by its mount's child; the mount left by its child.
    path.mount = std::move(mount);
    path.dentry = std::move(root);
  }
}

void FollowMounts(Path& path) {
  if (!path.dentry->is_mountpoint()) return;
  sync::MutexLock lock(tree);
  FollowMountsLocked(path);
}

}  // namespace redoubt::vfs
