// Root, working directory and umask of a task: Linux's fs_struct.
#ifndef REDOUBT_PKG_SENTRY_KERNEL_FS_CONTEXT_H_
#define REDOUBT_PKG_SENTRY_KERNEL_FS_CONTEXT_H_

#include <cstdint>
#include <utility>

#include "pkg/refs/refs.h"
#include "pkg/sentry/vfs/path.h"
#include "pkg/sync/mutex.h"

namespace redoubt::kernel {

// Shared by tasks with CLONE_FS. Thread-safe.
class FsContext final : public RefCounted {
 public:
  FsContext(vfs::Path root, vfs::Path cwd, uint32_t umask)
      : root_(std::move(root)), cwd_(std::move(cwd)), umask_(umask) {}

  vfs::Path root() const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return root_;
  }
  vfs::Path cwd() const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return cwd_;
  }
  uint32_t umask() const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return umask_;
  }
  void SetRoot(vfs::Path root) EXCLUDES(mu_) {
    {
      sync::MutexLock lock(mu_);
      std::swap(root_, root);
    }
  }
  void SetCwd(vfs::Path cwd) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    std::swap(cwd_, cwd);
  }
  // Returns the old one.
  uint32_t SetUmask(uint32_t umask) EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return std::exchange(umask_, umask & 0777);
  }
  RefPtr<FsContext> Clone() const EXCLUDES(mu_) {
    sync::MutexLock lock(mu_);
    return MakeRef<FsContext>(root_, cwd_, umask_);
  }

 private:
  mutable sync::Mutex mu_{sync::Rank::kFsContext};
  vfs::Path root_ GUARDED_BY(mu_);
  vfs::Path cwd_ GUARDED_BY(mu_);
  uint32_t umask_ GUARDED_BY(mu_);
};

}  // namespace redoubt::kernel

#endif  // REDOUBT_PKG_SENTRY_KERNEL_FS_CONTEXT_H_
