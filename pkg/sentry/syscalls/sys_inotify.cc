// inotify(7).
#include <sys/inotify.h>

#include "pkg/sentry/inotify/inotify.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"

namespace redoubt::syscalls {
namespace {

constexpr uint32_t kWatchMask = IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR | IN_DONT_FOLLOW |
                                IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ISDIR | IN_ONESHOT;

Result<uint64_t> DoInit(Task& task, int flags) {
  if ((flags & ~(IN_CLOEXEC | IN_NONBLOCK)) != 0) return Err(EINVAL);
  RefPtr<inotify::Inotify> instance = TRY(inotify::Inotify::Create(task.creds().ruid, flags & IN_NONBLOCK));
  return TRY(task.InstallFd(std::move(instance), (flags & IN_CLOEXEC) != 0));
}

Result<RefPtr<inotify::Inotify>> GetInotify(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  RefPtr<inotify::Inotify> instance = RefCast<inotify::Inotify>(file);
  if (!instance) return Err(EINVAL);
  return instance;
}

}  // namespace

Result<uint64_t> InotifyInit(Task& task, const SyscallArgs&) { return DoInit(task, 0); }
Result<uint64_t> InotifyInit1(Task& task, const SyscallArgs& a) { return DoInit(task, a.I32(0)); }

Result<uint64_t> InotifyAddWatch(Task& task, const SyscallArgs& a) {
  const uint32_t mask = a.U32(2);
  if (mask == 0 || (mask & ~kWatchMask) != 0) return Err(EINVAL);
  if ((mask & IN_MASK_ADD) != 0 && (mask & IN_MASK_CREATE) != 0) return Err(EINVAL);
  RefPtr<inotify::Inotify> instance = TRY(GetInotify(task, a.I32(0)));
  AtPath at = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(1), 0, (mask & IN_DONT_FOLLOW) == 0));
  vfs::Path path = TRY(at.Lookup());
  if ((mask & IN_ONLYDIR) != 0 && !path.inode().IsDirectory()) return Err(ENOTDIR);
  TRY(path.inode().CheckPermission(task.creds(), R_OK));
  return TRY(instance->AddWatch(path, mask));
}

Result<uint64_t> InotifyRmWatch(Task& task, const SyscallArgs& a) {
  RefPtr<inotify::Inotify> instance = TRY(GetInotify(task, a.I32(0)));
  TRY(instance->RemoveWatch(a.I32(1)));
  return 0;
}

}  // namespace redoubt::syscalls
