// Private to overlay: an inode of any type.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_INODE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_INODE_H_

#include <atomic>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/fsimpl/copy/copy.h"
#include "pkg/sentry/fsimpl/overlay/filesystem.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::overlay {

using copy::DirectoryEntry;

// A file of one layer or, copied up or merged, of both. In a directory of both, a name belongs to the upper layer if
// that has it; otherwise to the lower one unless it is hidden. A name that the upper layer has is hidden or absent
// below, always, so each name is one file's and listing needs no merging.
//
// Locks: copy_mu_ (a fiber lock, held across messages to the lower layer; after directories' locks) serializes copying
// up with what changes the number of names; mu_ is short and guards fields. No two inodes' copy_mu_ are held at once.
class OverlayInode final : public vfs::Inode {
 public:
  // One of both may be null. An inode of both is copied up already.
  OverlayInode(OverlayFilesystem& fs, RefPtr<vfs::Inode> upper, RefPtr<vfs::Inode> lower);
  ~OverlayInode() override;

  uint32_t type() const override { return type_; }
  vfs::Inode* upper() const { return upper_.load(std::memory_order_acquire); }
  const RefPtr<vfs::Inode>& lower() const { return lower_; }
  // The numbers that stay those of the lower file after copying up. Before the copy is published.
  void SetOrigin(uint64_t lower_ino, uint32_t lower_nlink, uint64_t upper_ino);

  Result<vfs::Attributes> GetAttributes() override;
  Result<> SetAttributes(const vfs::AttributeChange& change) override;
  // The lower layer does not change (overlay.h), so it need not be asked again.
  vfs::LookupCache lookup_cache() const override {
    vfs::LookupCache cache = real().lookup_cache();
    return cache == vfs::LookupCache::kTimed ? vfs::LookupCache::kCached : cache;
  }
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
  Result<std::string> Readlink() override { return real().Readlink(); }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;
  Result<std::string> GetXattr(std::string_view name) override { return real().GetXattr(name); }
  Result<> SetXattr(std::string_view name, std::string_view value, int flags) override;
  Result<> RemoveXattr(std::string_view name) override;
  Result<std::vector<std::string>> ListXattr() override { return real().ListXattr(); }
  Result<RefPtr<RefCounted>> bound_socket() override { return real().bound_socket(); }
  Result<> set_bound_socket(RefPtr<RefCounted> socket) override;
  RefPtr<RefCounted>* fifo_slot() override { return &fifo_; }

  // The visible names, with st_ino.
  Result<std::vector<DirectoryEntry>> List();

 private:
  OverlayFilesystem& fs() const { return static_cast<OverlayFilesystem&>(filesystem()); }
  vfs::Inode& real() const {
    vfs::Inode* u = upper();
    return u != nullptr ? *u : *lower_;
  }
  std::string WorkName() const { return "#" + std::to_string(work_id_); }

  // The inode of the upper layer, made if there is none: with the first `data_limit` bytes of the contents.
  Result<vfs::Inode*> CopyUp(uint64_t data_limit = UINT64_MAX) EXCLUDES(copy_mu_);
  Result<> CopyContents(vfs::Inode& twin, const vfs::Attributes& attrs, uint64_t data_limit);
  Result<> RemoveFromWork(vfs::Inode& twin);

  // Directories, with the VFS' lock of them held and copied up.
  bool IsHidden(std::string_view name) const EXCLUDES(mu_);
  void Hide(std::string_view name) EXCLUDES(mu_);
  // Whether `child` has its name here from the upper layer.
  bool HasUpperName(std::string_view name, const OverlayInode& child);
  void TouchModified();
  Result<bool> IsEmpty();
  // Takes the name from `child` but keeps it, and gives it one.
  Result<> Detach(std::string_view name, OverlayInode& child);
  Result<> Attach(std::string_view name, OverlayInode& child);

  // Not directories: a name of the lower layer was hidden, a name of the upper layer was removed.
  enum class NameLost { kUpper, kLower };
  void LoseName(NameLost lost) EXCLUDES(copy_mu_);
  uint32_t LowerNamesLocked() const REQUIRES(mu_);

  const uint32_t type_;
  const RefPtr<vfs::Inode> lower_;
  RefPtr<vfs::Inode> upper_ref_;  // set once, before upper_
  std::atomic<vfs::Inode*> upper_{nullptr};
  RefPtr<RefCounted> fifo_;  // guarded by the implementer of FIFOs
  // Set before upper_ is, not changed later; of inodes with both layers.
  uint64_t lower_ino_ = 0;
  uint32_t lower_nlink_ = 0;
  uint64_t upper_ino_ = 0;
  uint64_t work_id_ = 0;

  fiber::Mutex copy_mu_;
  mutable sync::Mutex mu_{sync::Rank::kInode};
  std::set<std::string, std::less<>> hidden_ GUARDED_BY(mu_);  // names of the lower directory that are not to be seen
  uint32_t hidden_links_ GUARDED_BY(mu_) = 0;                  // how many names of the lower file are hidden
  bool in_work_ GUARDED_BY(mu_) = false;                       // the copy has a name in the work directory
  bool removed_ GUARDED_BY(mu_) = false;                       // a directory after rmdir
};

}  // namespace redoubt::overlay

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_INODE_H_
