// /dev: the memory devices of mem(4), null(4), full(4), random(4), tty(4), and a devtmpfs with nodes for them.
#ifndef REDOUBT_PKG_SENTRY_FSIMPL_DEV_DEV_H_
#define REDOUBT_PKG_SENTRY_FSIMPL_DEV_DEV_H_

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/vfs/inode.h"

namespace redoubt::dev {

struct Hooks {
  // The controlling terminal of the current task's session (a tty::Terminal), or null.
  RefPtr<RefCounted> (*controlling_terminal)() = nullptr;
};

// Serves null, zero, full, random, urandom, /dev/tty, and /dev/console (which is the terminal set by SetConsole). Once,
// before the first open.
void RegisterDevices(const Hooks& hooks);
// What /dev/console opens: a tty::Terminal. ENXIO without one.
void SetConsole(RefPtr<RefCounted> terminal);

// A tmpfs of type devtmpfs with the nodes of all devices above, ptmx, the links fd, stdin, stdout, stderr and core, and
// the directories pts and shm (to be mounted on).
Result<RefPtr<vfs::Filesystem>> CreateDevtmpfs(pgalloc::MemoryFile& memory_file);

}  // namespace redoubt::dev

#endif  // REDOUBT_PKG_SENTRY_FSIMPL_DEV_DEV_H_
