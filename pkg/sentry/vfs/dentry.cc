#include "pkg/sentry/vfs/dentry.h"

#include <limits.h>

#include <utility>

#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

namespace {
constinit sync::Mutex tree_lock{sync::Rank::kDentryTree};
}  // namespace

sync::Mutex& Dentry::TreeLock() { return tree_lock; }

Dentry::Dentry(DentryKind kind, RefPtr<Dentry> parent, std::string name, RefPtr<Inode> inode, RefPtr<Filesystem> fs)
    : kind_(kind),
      parent_(std::move(parent)),
      name_(std::move(name)),
      fs_(std::move(fs)),
      inode_(std::move(inode)),
      directory_(inode_ && inode_->IsDirectory() ? std::make_unique<Directory>() : nullptr) {}

Dentry::~Dentry() = default;

RefPtr<Dentry> Dentry::MakeRoot(RefPtr<Inode> inode) {
  RefPtr<Filesystem> fs(&inode->filesystem());
  return RefPtr<Dentry>(new Dentry(DentryKind::kRoot, nullptr, "/", std::move(inode), std::move(fs)));
}

RefPtr<Dentry> Dentry::MakeAnonymous(RefPtr<Inode> inode, std::string name) {
  RefPtr<Filesystem> fs(&inode->filesystem());
  return RefPtr<Dentry>(new Dentry(DentryKind::kAnonymous, nullptr, std::move(name), std::move(inode), std::move(fs)));
}

RefPtr<Dentry> Dentry::MakeUnnamed(RefPtr<Dentry> parent, RefPtr<Inode> inode) {
  Result<Attributes> attrs = inode->GetAttributes();
  std::string name = "#" + std::to_string(attrs ? attrs->ino : 0);
  RefPtr<Filesystem> fs(&inode->filesystem());
  RefPtr<Dentry> d(new Dentry(DentryKind::kNamed, std::move(parent), std::move(name), std::move(inode), std::move(fs)));
  d->deleted_.store(true, std::memory_order_release);
  return d;
}

// Takes down a chain of parents by a loop: a guest may make directories deeper than any stack.
void Dentry::OnZeroRefs() {
  Dentry* dentry = this;
  while (dentry != nullptr) {
    // Nobody else reaches a dentry without references but through its parent's map, and there TryIncRef fails, so its
    // parent stays what it is.
    Dentry* parent = dentry->parent_.Release();
    if (parent != nullptr) parent->Unhash(*dentry);
    if (AnyWatches() && dentry->deleted() && !dentry->negative()) [[unlikely]]
      Watches::NameReleased(dentry->inode());
    delete dentry;
    dentry = parent != nullptr && parent->DropRefIsLast() ? parent : nullptr;
  }
}

void Dentry::Unhash(Dentry& child) {
  if (!directory_) return;
  sync::MutexLock lock(directory_->mu);
  auto it = directory_->children.find(std::string_view(child.name_));
  if (it != directory_->children.end() && it->second == &child) directory_->children.erase(it);
}

RefPtr<Dentry> Dentry::parent() const {
  sync::MutexLock lock(tree_lock);
  return parent_;
}

std::string Dentry::name() const {
  sync::MutexLock lock(tree_lock);
  return name_;
}

RefPtr<Dentry> Dentry::FindChild(std::string_view name) {
  sync::MutexLock lock(directory_->mu);
  auto it = directory_->children.find(name);
  if (it == directory_->children.end() || !it->second->TryIncRef()) return nullptr;
  return RefPtr<Dentry>::Adopt(it->second);
}

Result<RefPtr<Dentry>> Dentry::Lookup(std::string_view name, bool cached_only) {
  if (name.size() > NAME_MAX) return Err(ENAMETOOLONG);
  if (caches_children()) {
    if (RefPtr<Dentry> child = FindChild(name); child && IsFresh(*child)) {
      DentryCache::Get().Touch(*child);
      return child;
    }
  }
  if (cached_only) return Err(EAGAIN);
  fiber::MutexLock lock(directory_->lock);
  return LookupLocked(name);
}

Result<RefPtr<Dentry>> Dentry::LookupLocked(std::string_view name, Believe believe) {
  if (name.size() > NAME_MAX) return Err(ENAMETOOLONG);
  if (deleted()) return Err(ENOENT);
  RefPtr<Dentry> known = FindChild(name);
  if (known && believe == Believe::kCached && IsFresh(*known)) {
    DentryCache::Get().Touch(*known);
    return known;
  }
  Result<RefPtr<Inode>> found =
      known && known->inode_ ? inode_->LookupAgain(name, *known->inode_) : inode_->Lookup(name);
  if (!found) {
    if (found.error() != Errno(ENOENT)) return Err(found.error());
    if (known && known->negative()) {
      Confirm(*known);
      return known;
    }
    if (known) {
      // It went by itself (a process of procfs, a file of the host); whoever stands there stands on something deleted.
      known->deleted_.store(true);
      {
        sync::MutexLock tree(tree_lock);
        Unhash(*known);
      }
      DentryCache::Get().Forget(*known);
      Watches::NameGone(*known);
    }
    return Insert(name, nullptr);
  }
  // An uncached directory that still has the same file there: keep the dentry, since someone may stand on it or have
  // mounted on it.
  if (known && known->inode_ == *found) {
    Confirm(*known);
    return known;
  }
  return Insert(name, *std::move(found));
}

RefPtr<Dentry> Dentry::Insert(std::string_view name, RefPtr<Inode> inode) {
  RefPtr<Dentry> child(new Dentry(DentryKind::kNamed, RefPtr<Dentry>(this), std::string(name), std::move(inode), fs_));
  const bool remember = caches_children();
  Confirm(*child);
  Dentry* replaced = nullptr;
  if (remember || !child->negative()) {
    sync::MutexLock lock(directory_->mu);
    auto [it, fresh] = directory_->children.try_emplace(std::string(name), child.get());
    if (!fresh) {
      // A dying one is on its way out by itself.
      if (it->second->TryIncRef()) replaced = it->second;
      it->second = child.get();
    }
  }
  if (replaced != nullptr) {
    RefPtr<Dentry> old = RefPtr<Dentry>::Adopt(replaced);
    old->deleted_.store(true);
    DentryCache::Get().Forget(*old);
    Watches::NameGone(*old);
  }
  if (remember) DentryCache::Get().Touch(*child);
  return child;
}

void Dentry::Remove(Dentry& child) {
  child.deleted_.store(true);
  {
    sync::MutexLock tree(tree_lock);
    Unhash(child);
  }
  DentryCache::Get().Forget(child);
  Watches::NameGone(child);
  if (caches_children()) Insert(child.name(), nullptr);
}

void Dentry::Move(Dentry& child, Dentry& new_parent, std::string_view new_name) {
  RefPtr<Dentry> old_parent, replaced;
  std::string old_name;
  {
    sync::MutexLock tree(tree_lock);
    old_parent = child.parent_;
    old_parent->Unhash(child);
    old_name = std::exchange(child.name_, std::string(new_name));
    child.parent_ = RefPtr<Dentry>(&new_parent);
    new_parent.Confirm(child);
    sync::MutexLock lock(new_parent.directory_->mu);
    auto [it, fresh] = new_parent.directory_->children.try_emplace(child.name_, &child);
    if (!fresh) {
      if (it->second->TryIncRef()) replaced = RefPtr<Dentry>::Adopt(it->second);
      it->second = &child;
    }
  }
  if (replaced) {
    replaced->deleted_.store(true);
    DentryCache::Get().Forget(*replaced);
    Watches::NameGone(*replaced);
  }
  if (old_parent->caches_children()) old_parent->Insert(old_name, nullptr);
}

void Dentry::Exchange(Dentry& a, Dentry& b) {
  sync::MutexLock tree(tree_lock);
  a.parent_->Unhash(a);
  b.parent_->Unhash(b);
  std::swap(a.parent_, b.parent_);
  std::swap(a.name_, b.name_);
  for (Dentry* d : {&a, &b}) {
    sync::MutexLock lock(d->parent_->directory_->mu);
    d->parent_->directory_->children[d->name_] = d;
  }
}

bool Dentry::IsAncestorOf(const Dentry& other) const {
  sync::MutexLock lock(tree_lock);
  for (const Dentry* d = &other; d != nullptr; d = d->parent_.get()) {
    if (d == this) return true;
  }
  return false;
}

}  // namespace redoubt::vfs
