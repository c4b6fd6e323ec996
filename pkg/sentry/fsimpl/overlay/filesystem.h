// Private to overlay: the file system, and which overlay inode stands for which inode of a layer.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_FILESYSTEM_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_FILESYSTEM_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sync/mutex.h"

namespace redoubt::overlay {

class OverlayInode;

// What copying up makes is put into a directory of the upper file system that has no name ("work"), and stays there
// until a rename or a link gives it a name of the upper layer. Meanwhile it is found through the lower file's name: the
// lower inode leads to the overlay inode, which holds the copy. So copying up touches neither the parent nor any other
// name of the file.
class OverlayFilesystem final : public vfs::Filesystem {
 public:
  OverlayFilesystem(RefPtr<vfs::Filesystem> upper, RefPtr<vfs::Filesystem> lower);
  ~OverlayFilesystem() override;
  Result<> Init();

  std::string_view type_name() const override { return "overlay"; }
  RefPtr<vfs::Inode> root() override;
  Result<struct statfs> Statfs() override;
  Result<> Sync() override { return upper_->Sync(); }
  void Unmounted() override;

  enum class Layer { kUpper, kLower };
  // The one overlay inode of `real`.
  RefPtr<OverlayInode> NodeFor(RefPtr<vfs::Inode> real, Layer layer) EXCLUDES(mu_);
  // `node` has got the copy `upper`, whose inode number is `upper_ino`; it is `node`'s from now on.
  void AddUpper(OverlayInode& node, vfs::Inode& upper, uint64_t upper_ino, uint64_t ino) EXCLUDES(mu_);
  // Keeps what cannot be made again from the layers: copies, and counts of hidden names.
  void Pin(OverlayInode& node) EXCLUDES(mu_);
  void Unpin(OverlayInode& node) EXCLUDES(mu_);
  // `node` dies.
  void Forget(OverlayInode& node, vfs::Inode* upper, uint64_t upper_ino, vfs::Inode* lower) EXCLUDES(mu_);

  vfs::Inode& work() const { return *work_; }
  vfs::Inode& upper_root() const { return *upper_root_; }
  uint64_t NextWorkId() { return next_work_id_.fetch_add(1, std::memory_order_relaxed); }
  // st_ino of inodes of the upper layer: the lower file's for a copy, otherwise a number that the lower layer does not
  // use.
  void TranslateUpperInos(std::vector<uint64_t*>& inos) EXCLUDES(mu_);
  static uint64_t UpperIno(uint64_t ino) { return ino | uint64_t{1} << 62; }

 private:
  const RefPtr<vfs::Filesystem> upper_, lower_;
  RefPtr<vfs::Inode> upper_root_, work_;
  std::atomic<uint64_t> next_work_id_{1};
  sync::Mutex mu_{sync::Rank::kFileSystem};
  RefPtr<OverlayInode> root_ GUARDED_BY(mu_);
  std::unordered_map<vfs::Inode*, OverlayInode*> nodes_ GUARDED_BY(mu_);  // living ones, by the inodes of both layers
  std::unordered_map<OverlayInode*, RefPtr<OverlayInode>> pinned_ GUARDED_BY(mu_);
  std::unordered_map<uint64_t, uint64_t> copied_inos_ GUARDED_BY(mu_);  // of copies: upper to lower inode number
};

}  // namespace redoubt::overlay

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_OVERLAY_FILESYSTEM_H_
