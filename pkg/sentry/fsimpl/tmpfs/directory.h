// A tmpfs directory. Private to tmpfs.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_DIRECTORY_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_DIRECTORY_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "pkg/sentry/fsimpl/tmpfs/node.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::tmpfs {

// Entries in the order of their making, each with a number that never comes again: an offset of getdents(2) stays good
// whatever is made or removed meanwhile.
class Directory final : public Node {
 public:
  Directory(TmpfsFilesystem& fs, const vfs::NewInode& n) : Node(fs, n, 2) {}
  ~Directory() override;

  Result<RefPtr<vfs::Inode>> Lookup(std::string_view name) override;
  Result<RefPtr<vfs::Inode>> Create(std::string_view name, const vfs::NewInode& n) override;
  Result<RefPtr<vfs::Inode>> Mkdir(std::string_view name, const vfs::NewInode& n) override;
  Result<RefPtr<vfs::Inode>> Symlink(std::string_view name, std::string_view target, const vfs::NewInode& n) override;
  Result<> Link(std::string_view name, vfs::Inode& target) override;
  Result<> Unlink(std::string_view name, vfs::Inode& child) override;
  Result<> Rmdir(std::string_view name, vfs::Inode& child) override;
  Result<> Rename(std::string_view old_name, vfs::Inode& child, vfs::Inode& new_parent, std::string_view new_name,
                  vfs::Inode* replaced, uint32_t flags) override;
  Result<RefPtr<vfs::Inode>> Tmpfile(const vfs::NewInode& n) override;
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;

  // Fills `sink` from `offset` on, "." and ".." first; returns where to go on.
  int64_t List(vfs::DirentSink& sink, int64_t offset, uint64_t parent_ino);
  bool IsEmpty() const;

 protected:
  Size GetSize() const override;

 private:
  struct Entry {
    std::string name;
    RefPtr<Node> node;
  };
  static constexpr int64_t kFirstOffset = 2;  // 0 is ".", 1 is ".."

  void Add(std::string_view name, RefPtr<Node> node);
  RefPtr<Node> Remove(std::string_view name);
  // Puts `node` in the place of what `name` names; returns that.
  RefPtr<Node> Replace(std::string_view name, RefPtr<Node> node);

  mutable sync::Mutex entries_mu_{sync::Rank::kInode};
  std::map<int64_t, Entry> entries_ GUARDED_BY(entries_mu_);
  std::unordered_map<std::string_view, int64_t> by_name_ GUARDED_BY(entries_mu_);  // keys lie in entries_
  int64_t next_offset_ GUARDED_BY(entries_mu_) = kFirstOffset;
};

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_DIRECTORY_H_
