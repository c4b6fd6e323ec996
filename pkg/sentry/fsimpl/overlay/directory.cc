// Names: lookup, creation, removal, renaming.
#include <linux/fs.h>

#include <unordered_set>
#include <utility>

#include "pkg/sentry/fsimpl/overlay/inode.h"

namespace redoubt::overlay {

bool OverlayInode::IsHidden(std::string_view name) const {
  sync::MutexLock lock(mu_);
  return hidden_.contains(name);
}

void OverlayInode::Hide(std::string_view name) {
  sync::MutexLock lock(mu_);
  hidden_.emplace(name);
}

bool OverlayInode::HasUpperName(std::string_view name, const OverlayInode& child) {
  vfs::Inode* up = upper();
  if (up == nullptr || child.upper() == nullptr) return false;
  Result<RefPtr<vfs::Inode>> found = up->Lookup(name);
  return found && found->get() == child.upper();
}

void OverlayInode::TouchModified() {
  vfs::AttributeChange change;
  change.mtime = clock::Realtime();
  if (vfs::Inode* up = upper()) (void)up->SetAttributes(change);
}

Result<RefPtr<vfs::Inode>> OverlayInode::Lookup(std::string_view name) {
  if (vfs::Inode* up = upper()) {
    Result<RefPtr<vfs::Inode>> found = up->Lookup(name);
    if (found) return RefPtr<vfs::Inode>(fs().NodeFor(*std::move(found), OverlayFilesystem::Layer::kUpper));
    if (found.error() != Errno(ENOENT)) return found;
  }
  if (!lower_ || IsHidden(name)) return Err(ENOENT);
  RefPtr<vfs::Inode> found = TRY(lower_->Lookup(name));
  return RefPtr<vfs::Inode>(fs().NodeFor(std::move(found), OverlayFilesystem::Layer::kLower));
}

Result<RefPtr<vfs::Inode>> OverlayInode::Create(std::string_view name, const vfs::NewInode& n) {
  vfs::Inode* up = TRY(CopyUp());
  RefPtr<vfs::Inode> made = TRY(up->Create(name, n));
  return RefPtr<vfs::Inode>(fs().NodeFor(std::move(made), OverlayFilesystem::Layer::kUpper));
}

Result<RefPtr<vfs::Inode>> OverlayInode::Mkdir(std::string_view name, const vfs::NewInode& n) {
  vfs::Inode* up = TRY(CopyUp());
  RefPtr<vfs::Inode> made = TRY(up->Mkdir(name, n));
  return RefPtr<vfs::Inode>(fs().NodeFor(std::move(made), OverlayFilesystem::Layer::kUpper));
}

Result<RefPtr<vfs::Inode>> OverlayInode::Symlink(std::string_view name, std::string_view target,
                                                 const vfs::NewInode& n) {
  vfs::Inode* up = TRY(CopyUp());
  RefPtr<vfs::Inode> made = TRY(up->Symlink(name, target, n));
  return RefPtr<vfs::Inode>(fs().NodeFor(std::move(made), OverlayFilesystem::Layer::kUpper));
}

Result<RefPtr<vfs::Inode>> OverlayInode::Tmpfile(const vfs::NewInode& n) {
  RefPtr<vfs::Inode> made = TRY(fs().upper_root().Tmpfile(n));
  return RefPtr<vfs::Inode>(fs().NodeFor(std::move(made), OverlayFilesystem::Layer::kUpper));
}

Result<> OverlayInode::Link(std::string_view name, vfs::Inode& target) {
  auto& node = static_cast<OverlayInode&>(target);
  vfs::Inode* up = TRY(CopyUp());
  vfs::Inode* real = TRY(node.CopyUp());
  fiber::MutexLock lock(node.copy_mu_);
  return up->Link(name, *real);
}

void OverlayInode::LoseName(NameLost lost) {
  if (!lower_) return;
  fiber::MutexLock lock(copy_mu_);
  if (lost == NameLost::kLower) {
    sync::MutexLock fields(mu_);
    ++hidden_links_;
  }
  Result<vfs::Attributes> attrs = GetAttributes();
  if (!attrs || attrs->nlink > 0) {
    fs().Pin(*this);
    return;
  }
  bool in_work;
  {
    sync::MutexLock fields(mu_);
    in_work = std::exchange(in_work_, false);
  }
  if (in_work) (void)RemoveFromWork(*upper());
  fs().Unpin(*this);
}

Result<> OverlayInode::Unlink(std::string_view name, vfs::Inode& child) {
  auto& node = static_cast<OverlayInode&>(child);
  vfs::Inode* up = TRY(CopyUp());
  RefPtr<OverlayInode> keep(&node);
  if (HasUpperName(name, node)) {
    TRY(up->Unlink(name, *node.upper()));
    node.LoseName(NameLost::kUpper);
  } else {
    Hide(name);
    TouchModified();
    node.LoseName(NameLost::kLower);
  }
  return {};
}

Result<bool> OverlayInode::IsEmpty() {
  if (vfs::Inode* up = upper()) {
    std::vector<DirectoryEntry> entries = TRY(copy::List(*up));
    if (!entries.empty()) return false;
  }
  if (!lower_) return true;
  std::vector<DirectoryEntry> entries = TRY(copy::List(*lower_));
  sync::MutexLock lock(mu_);
  for (const DirectoryEntry& e : entries) {
    if (!hidden_.contains(e.name)) return false;
  }
  return true;
}

Result<> OverlayInode::Rmdir(std::string_view name, vfs::Inode& child) {
  auto& node = static_cast<OverlayInode&>(child);
  vfs::Inode* up = TRY(CopyUp());
  RefPtr<OverlayInode> keep(&node);
  if (!TRY(node.IsEmpty())) return Err(ENOTEMPTY);
  if (HasUpperName(name, node)) {
    TRY(up->Rmdir(name, *node.upper()));
  } else {
    Hide(name);
    TouchModified();
  }
  if (!node.lower_) return {};
  fiber::MutexLock lock(node.copy_mu_);
  bool in_work;
  {
    sync::MutexLock fields(node.mu_);
    node.removed_ = true;
    in_work = std::exchange(node.in_work_, false);
  }
  if (in_work) (void)node.RemoveFromWork(*node.upper());
  fs().Unpin(node);
  return {};
}

Result<> OverlayInode::Detach(std::string_view name, OverlayInode& child) {
  fiber::MutexLock lock(child.copy_mu_);
  if (!HasUpperName(name, child)) {
    Hide(name);
    TouchModified();
    if (!child.IsDirectory()) {
      sync::MutexLock fields(child.mu_);
      ++child.hidden_links_;
    }
    return {};
  }
  bool in_work;
  {
    sync::MutexLock fields(child.mu_);
    in_work = std::exchange(child.in_work_, true);
  }
  if (in_work) return upper()->Unlink(name, *child.upper());
  if (child.work_id_ == 0) child.work_id_ = fs().NextWorkId();
  return upper()->Rename(name, *child.upper(), fs().work(), child.WorkName(), nullptr, 0);
}

Result<> OverlayInode::Attach(std::string_view name, OverlayInode& child) {
  fiber::MutexLock lock(child.copy_mu_);
  bool other_names;
  {
    // While some name of the lower file is seen, the copy must stay in the work directory as well.
    sync::MutexLock fields(child.mu_);
    other_names = child.lower_ && !child.IsDirectory() && child.LowerNamesLocked() > 0;
    if (!other_names) child.in_work_ = false;
  }
  if (other_names) return upper()->Link(name, *child.upper());
  return fs().work().Rename(child.WorkName(), *child.upper(), *upper(), name, nullptr, 0);
}

Result<> OverlayInode::Rename(std::string_view old_name, vfs::Inode& child, vfs::Inode& new_parent,
                              std::string_view new_name, vfs::Inode* replaced, uint32_t flags) {
  auto& node = static_cast<OverlayInode&>(child);
  auto& to = static_cast<OverlayInode&>(new_parent);
  auto* other = static_cast<OverlayInode*>(replaced);
  const bool exchange = flags & RENAME_EXCHANGE;
  if (!exchange && other != nullptr && other->IsDirectory() && !TRY(other->IsEmpty())) return Err(ENOTEMPTY);
  vfs::Inode* up = TRY(CopyUp());
  vfs::Inode* to_up = TRY(to.CopyUp());
  vfs::Inode* real = TRY(node.CopyUp());
  if (exchange) {
    vfs::Inode* other_real = TRY(other->CopyUp());
    if (HasUpperName(old_name, node) && to.HasUpperName(new_name, *other)) {
      return up->Rename(old_name, *real, *to_up, new_name, other_real, flags);
    }
    TRY(Detach(old_name, node));
    TRY(to.Detach(new_name, *other));
    TRY(Attach(old_name, *other));
    return to.Attach(new_name, node);
  }
  // The VFS has made sure that nothing else stands in the way, so what follows does not fail half-way.
  if (other != nullptr) TRY(other->IsDirectory() ? to.Rmdir(new_name, *other) : to.Unlink(new_name, *other));
  if (HasUpperName(old_name, node)) return up->Rename(old_name, *real, *to_up, new_name, nullptr, 0);
  TRY(Detach(old_name, node));
  return to.Attach(new_name, node);
}

Result<std::vector<DirectoryEntry>> OverlayInode::List() {
  std::vector<DirectoryEntry> result;
  std::unordered_set<std::string_view> seen;
  vfs::Inode* const up = upper();
  if (up != nullptr) {
    result = TRY(copy::List(*up));
    std::vector<uint64_t*> inos;
    inos.reserve(result.size());
    for (DirectoryEntry& e : result) inos.push_back(&e.ino);
    fs().TranslateUpperInos(inos);
  }
  if (!lower_) return result;
  std::vector<DirectoryEntry> below = TRY(copy::List(*lower_));
  if (up == nullptr) return below;
  // By what this class keeps true nothing would be seen twice, but the host may have made a file below since.
  for (const DirectoryEntry& e : result) seen.insert(e.name);
  std::vector<DirectoryEntry> visible;
  {
    sync::MutexLock lock(mu_);
    for (DirectoryEntry& e : below) {
      if (!hidden_.contains(e.name) && !seen.contains(e.name)) visible.push_back(std::move(e));
    }
  }
  seen.clear();
  result.insert(result.end(), std::make_move_iterator(visible.begin()), std::make_move_iterator(visible.end()));
  return result;
}

}  // namespace redoubt::overlay
