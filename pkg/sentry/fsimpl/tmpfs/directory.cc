#include "pkg/sentry/fsimpl/tmpfs/directory.h"

#include <dirent.h>
#include <linux/fs.h>
#include <unistd.h>

#include <utility>

#include "pkg/sentry/fsimpl/tmpfs/regular_file.h"
#include "pkg/sentry/fsimpl/tmpfs/special_file.h"
#include "pkg/sentry/vfs/dentry.h"

namespace redoubt::tmpfs {

namespace {

// What Linux's tmpfs counts per entry, with "." and "..".
constexpr uint64_t kEntrySize = 20;

class DirectoryDescription final : public vfs::FileDescription {
 public:
  DirectoryDescription(RefPtr<Directory> directory, vfs::Path path, int flags)
      : FileDescription(std::move(path), flags), directory_(std::move(directory)) {}

  Result<size_t> PRead(IoSequence&, uint64_t, vfs::IoFlags) override { return Err(EISDIR); }

  Result<> Getdents(vfs::DirentSink& sink) override {
    if (path().dentry->deleted()) return Err(ENOENT);
    uint64_t parent_ino = directory_->ino();
    if (RefPtr<vfs::Dentry> parent = path().dentry->parent()) {
      parent_ino = static_cast<Directory&>(parent->inode()).ino();
    }
    fiber::MutexLock lock(offset_lock());
    set_offset(static_cast<uint64_t>(directory_->List(sink, static_cast<int64_t>(offset()), parent_ino)));
    directory_->TouchAccessed(path(), flags());
    return {};
  }

  Result<uint64_t> Seek(int64_t offset, int whence) override {
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

 private:
  const RefPtr<Directory> directory_;
};

}  // namespace

// A guest may nest directories deeper than any stack: take the tree down by a loop.
Directory::~Directory() {
  std::vector<RefPtr<Node>> dying;
  auto take = [&dying](Directory& d) {
    sync::MutexLock lock(d.entries_mu_);
    for (auto& [offset, entry] : d.entries_) dying.push_back(std::move(entry.node));
    d.by_name_.clear();
    d.entries_.clear();
  };
  take(*this);
  while (!dying.empty()) {
    RefPtr<Node> node = std::move(dying.back());
    dying.pop_back();
    // With no other reference nobody can add to it any more.
    if (node->IsDirectory() && node->RefCount() == 1) take(static_cast<Directory&>(*node));
  }
}

Node::Size Directory::GetSize() const {
  sync::MutexLock lock(entries_mu_);
  return {.size = (entries_.size() + 2) * kEntrySize};
}

bool Directory::IsEmpty() const {
  sync::MutexLock lock(entries_mu_);
  return entries_.empty();
}

void Directory::Add(std::string_view name, RefPtr<Node> node) {
  sync::MutexLock lock(entries_mu_);
  auto [it, added] = entries_.emplace(next_offset_++, Entry{std::string(name), std::move(node)});
  by_name_.emplace(it->second.name, it->first);
}

RefPtr<Node> Directory::Remove(std::string_view name) {
  sync::MutexLock lock(entries_mu_);
  auto it = by_name_.find(name);
  if (it == by_name_.end()) return nullptr;
  auto entry = entries_.find(it->second);
  RefPtr<Node> node = std::move(entry->second.node);
  by_name_.erase(it);
  entries_.erase(entry);
  return node;
}

RefPtr<Node> Directory::Replace(std::string_view name, RefPtr<Node> node) {
  sync::MutexLock lock(entries_mu_);
  auto it = by_name_.find(name);
  CHECK(it != by_name_.end(), "the VFS has looked it up under the directory's lock");
  return std::exchange(entries_.at(it->second).node, std::move(node));
}

Result<RefPtr<vfs::Inode>> Directory::Lookup(std::string_view name) {
  sync::MutexLock lock(entries_mu_);
  auto it = by_name_.find(name);
  if (it == by_name_.end()) return Err(ENOENT);
  return RefPtr<vfs::Inode>(entries_.at(it->second).node);
}

Result<RefPtr<vfs::Inode>> Directory::Create(std::string_view name, const vfs::NewInode& n) {
  TRY(fs().ChargeInode());
  RefPtr<Node> node;
  if (S_ISREG(n.mode)) {
    node = MakeRef<RegularFile>(fs(), n, 1);
  } else {
    node = MakeRef<SpecialFile>(fs(), n);
  }
  Add(name, node);
  TouchModified();
  return RefPtr<vfs::Inode>(std::move(node));
}

Result<RefPtr<vfs::Inode>> Directory::Mkdir(std::string_view name, const vfs::NewInode& n) {
  TRY(fs().ChargeInode());
  RefPtr<Node> node = MakeRef<Directory>(fs(), n);
  Add(name, node);
  ChangeLinks(1);
  TouchModified();
  return RefPtr<vfs::Inode>(std::move(node));
}

Result<RefPtr<vfs::Inode>> Directory::Symlink(std::string_view name, std::string_view target, const vfs::NewInode& n) {
  TRY(fs().ChargeInode());
  RefPtr<Node> node = MakeRef<SymbolicLink>(fs(), n, target);
  Add(name, node);
  TouchModified();
  return RefPtr<vfs::Inode>(std::move(node));
}

Result<> Directory::Link(std::string_view name, vfs::Inode& target) {
  Node& node = static_cast<Node&>(target);
  TRY(node.AddLink());
  Add(name, RefPtr<Node>(&node));
  TouchModified();
  return {};
}

Result<> Directory::Unlink(std::string_view name, vfs::Inode& child) {
  RefPtr<Node> node = Remove(name);
  if (!node) return Err(ENOENT);
  node->ChangeLinks(-1);
  TouchModified();
  return {};
}

Result<> Directory::Rmdir(std::string_view name, vfs::Inode& child) {
  Directory& dir = static_cast<Directory&>(child);
  if (!dir.IsEmpty()) return Err(ENOTEMPTY);
  RefPtr<Node> node = Remove(name);
  if (!node) return Err(ENOENT);
  node->ChangeLinks(-2);
  ChangeLinks(-1);
  TouchModified();
  return {};
}

Result<> Directory::Rename(std::string_view old_name, vfs::Inode& child, vfs::Inode& new_parent,
                           std::string_view new_name, vfs::Inode* replaced, uint32_t flags) {
  Directory& to = static_cast<Directory&>(new_parent);
  RefPtr<Node> node(static_cast<Node*>(&child));
  RefPtr<Node> other(static_cast<Node*>(replaced));
  if (flags & RENAME_EXCHANGE) {
    Replace(old_name, other);
    to.Replace(new_name, node);
    const int moved = (node->IsDirectory() ? 1 : 0) - (other->IsDirectory() ? 1 : 0);
    if (this != &to && moved != 0) {
      ChangeLinks(-moved);
      to.ChangeLinks(moved);
    }
    other->TouchChanged();
  } else {
    const bool over_directory = other && other->IsDirectory();
    if (over_directory && !static_cast<Directory&>(*other).IsEmpty()) return Err(ENOTEMPTY);
    if (other) {
      to.Replace(new_name, node);
      other->ChangeLinks(over_directory ? -2 : -1);
    } else {
      to.Add(new_name, node);
    }
    Remove(old_name);
    if (node->IsDirectory()) ChangeLinks(-1);
    if (node->IsDirectory() && !over_directory) to.ChangeLinks(1);
  }
  node->TouchChanged();
  TouchModified();
  if (this != &to) to.TouchModified();
  return {};
}

Result<RefPtr<vfs::Inode>> Directory::Tmpfile(const vfs::NewInode& n) {
  TRY(fs().ChargeInode());
  RefPtr<RegularFile> file = MakeRef<RegularFile>(fs(), n, 0);
  file->AllowFirstLink();
  return RefPtr<vfs::Inode>(std::move(file));
}

Result<RefPtr<vfs::FileDescription>> Directory::Open(const vfs::Path& path, int flags) {
  return RefPtr<vfs::FileDescription>(MakeRef<DirectoryDescription>(RefPtr<Directory>(this), path, flags));
}

int64_t Directory::List(vfs::DirentSink& sink, int64_t offset, uint64_t parent_ino) {
  if (offset == 0) {
    if (!sink.Add(".", ino(), DT_DIR, 1)) return 0;
    offset = 1;
  }
  if (offset == 1) {
    if (!sink.Add("..", parent_ino, DT_DIR, kFirstOffset)) return 1;
    offset = kFirstOffset;
  }
  sync::MutexLock lock(entries_mu_);
  for (auto it = entries_.lower_bound(offset); it != entries_.end(); ++it) {
    const Node& node = *it->second.node;
    if (!sink.Add(it->second.name, node.ino(), IFTODT(node.type()), it->first + 1)) break;
    offset = it->first + 1;
  }
  return offset;
}

}  // namespace redoubt::tmpfs
