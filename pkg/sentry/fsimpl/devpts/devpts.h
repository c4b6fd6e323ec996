// pts(4): pseudo-terminals and the file system that names them.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_DEVPTS_DEVPTS_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_DEVPTS_DEVPTS_H_

#include <cstdint>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/tty/job_control.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::devpts {

struct Options {
  uint32_t slave_mode = 0600;
  int64_t slave_gid = -1;  // -1: who opens the master
  int64_t slave_uid = -1;
  uint32_t ptmx_mode = 0666;
  uint32_t max = 4096;  // pseudo-terminals at a time: ENOSPC
};

// mount(2)'s data: "newinstance,ptmxmode=0666,mode=0620,gid=5". EINVAL.
Result<Options> ParseOptions(std::string_view data);

// Each an instance of its own, as with "newinstance".
RefPtr<vfs::Filesystem> Create(const Options& options);

// ioctl_tty(2) TIOCGPTPEER: ENOTTY if `master` is no pseudo-terminal's master.
Result<RefPtr<vfs::FileDescription>> OpenPeer(vfs::FileDescription& master, int flags);

// Serves character device 5:2: a ptmx node on another file system, which opens the devpts mounted on "pts" beside it.
void RegisterDevices();

}  // namespace redoubt::devpts

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_DEVPTS_DEVPTS_H_
