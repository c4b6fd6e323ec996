// tmpfs nodes without contents of their own: symbolic links, devices, FIFOs, sockets. Private to tmpfs.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_SPECIAL_FILE_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_SPECIAL_FILE_H_

#include <string>
#include <string_view>

#include "pkg/sentry/fsimpl/tmpfs/node.h"

namespace redoubt::tmpfs {

class SymbolicLink final : public Node {
 public:
  SymbolicLink(TmpfsFilesystem& fs, const vfs::NewInode& n, std::string_view target)
      : Node(fs, n, 1), target_(target) {}

  Result<std::string> Readlink() override { return target_; }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override { return Err(ELOOP); }

 protected:
  Size GetSize() const override { return {.size = target_.size()}; }

 private:
  const std::string target_;
};

class SpecialFile final : public Node {
 public:
  SpecialFile(TmpfsFilesystem& fs, const vfs::NewInode& n) : Node(fs, n, 1), rdev_(n.rdev) {}

  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override;
  Result<RefPtr<RefCounted>> bound_socket() override EXCLUDES(slot_mu_);
  Result<> set_bound_socket(RefPtr<RefCounted> socket) override EXCLUDES(slot_mu_);
  RefPtr<RefCounted>* fifo_slot() override { return &fifo_; }

 private:
  const uint64_t rdev_;
  sync::Mutex slot_mu_{sync::Rank::kInode};
  RefPtr<RefCounted> socket_ GUARDED_BY(slot_mu_);
  RefPtr<RefCounted> fifo_;  // guarded by the implementer of FIFOs
};

}  // namespace redoubt::tmpfs

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_TMPFS_SPECIAL_FILE_H_
