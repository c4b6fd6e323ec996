// The terminal side of an imported host terminal. Private to host.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_TERMINAL_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_TERMINAL_H_

#include "pkg/sentry/fsimpl/host/host_inode.h"
#include "pkg/sentry/tty/job_control.h"

namespace redoubt::host {

// Modes and sizes live in the host's terminal; sessions and groups, which are the guest's, here. Inodes own it and are
// not kept alive by it: a session that still names it when the last description has gone finds it closed (EIO).
class HostTerminal final : public tty::Terminal {
 public:
  explicit HostTerminal(HostInode& inode) : inode_(&inode) {}

  Result<RefPtr<vfs::FileDescription>> OpenTerminal(const vfs::Path& path, int flags) override EXCLUDES(mu_);
  Result<uint64_t> Ioctl(HostInode& inode, MemoryIo& io, uint32_t command, uint64_t arg);
  // The inode is about to go.
  void Forget(HostInode& inode) EXCLUDES(mu_);

 private:
  sync::Mutex mu_{sync::Rank::kTty};
  HostInode* inode_ GUARDED_BY(mu_);
};

}  // namespace redoubt::host

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_TERMINAL_H_
