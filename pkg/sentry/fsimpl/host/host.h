// Descriptions over the host's descriptors: a container's stdin, stdout and stderr.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_H_

#include <cstdint>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/tty/job_control.h"
#include "pkg/sentry/vfs/file_description.h"

namespace redoubt::host {

// Takes over `fd` (also on failure) and gives the guest a description of it, shown as "host:[N]": a pipe, socket,
// regular file, character device or terminal. `flags` are the access mode and status flags the guest sees; the host's
// own description keeps its flags, since it may be shared with other host processes. Ownership is shown as `uid` and
// `gid`. EINVAL for other kinds (directories).
//
// Neither reads nor writes block the Sentry: what cannot be asked without blocking is asked after a poll, through
// pkg/hostio. SIGPIPE must be ignored in the process.
Result<RefPtr<vfs::FileDescription>> Import(int fd, int flags, uint32_t uid, uint32_t gid);

// Opens what Import needs of the host besides the descriptor itself, for a process that may open nothing later.
void Prepare();

// The terminal behind a description made by Import, or null if that is none: for SetForeground, SetConsole, and signals
// that the host sends on.
RefPtr<tty::Terminal> TerminalOf(vfs::FileDescription& file);

}  // namespace redoubt::host

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_HOST_HOST_H_
