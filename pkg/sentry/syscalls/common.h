// What the handlers share: decoding of arguments and the loops around operations that would block.
#ifndef REDOUBT_PKG_SENTRY_SYSCALLS_COMMON_H_
#define REDOUBT_PKG_SENTRY_SYSCALLS_COMMON_H_

#include <fcntl.h>
#include <sys/uio.h>
#include <time.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/sentry/kernel/kernel.h"
#include "pkg/sentry/kernel/task.h"
#include "pkg/sentry/syscalls/table.h"
#include "pkg/sentry/time/clock.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/vfs.h"

namespace redoubt::syscalls {

using kernel::SyscallArgs;
using kernel::Task;

inline constexpr size_t kPathMax = 4096;           // NUL included
inline constexpr size_t kMaxIoBytes = 0x7ffff000;  // MAX_RW_COUNT: what one read or write moves at most
inline constexpr size_t kMaxIovecs = 1024;         // UIO_MAXIOV

// A path argument: EFAULT, ENAMETOOLONG; ENOENT for an empty one is the walker's.
Result<std::string> CopyInPath(Task& task, Addr addr);

// A buffer argument: EFAULT for a range that wraps or leaves user space (the pages are looked at when copied).
Result<IoSequence> Buffer(Task& task, Addr addr, size_t length);
// readv(2)'s vector: EINVAL for more than UIO_MAXIOV or a total over SSIZE_MAX; cut to MAX_RW_COUNT.
Result<IoSequence> CopyInIovecs(Task& task, Addr addr, size_t count);
Result<std::vector<AddrRange>> CopyInIovecRanges(Task& task, Addr addr, size_t count);

// Timespec in: EFAULT, EINVAL for a negative or overflowing one.
Result<clock::Nanoseconds> CopyInTimespec(Task& task, Addr addr);
Result<clock::Nanoseconds> CopyInTimeval(Task& task, Addr addr);
Result<> CopyOutTimespec(Task& task, Addr addr, clock::Nanoseconds ns);
// A relative time as a deadline of the executor's clock; saturates.
fiber::Time DeadlineAfter(clock::Nanoseconds duration);

// Runs `attempt`; if it answers EAGAIN and the description is not O_NONBLOCK, waits for `mask` and tries again.
template <typename Attempt>
auto RunBlocking(vfs::FileDescription& file, waiter::EventMask mask, fiber::Time deadline, Attempt&& attempt)
    -> decltype(attempt()) {
  if (file.nonblocking()) return attempt();
  return wait::Retry(file, mask, deadline, attempt);
}

// read(2) and write(2) on a description, blocking as its flags say. Write goes on after a short write and sends SIGPIPE
// with EPIPE.
Result<uint64_t> ReadFile(Task& task, vfs::FileDescription& file, IoSequence& dst, vfs::IoFlags flags);
Result<uint64_t> WriteFile(Task& task, vfs::FileDescription& file, IoSequence& src, vfs::IoFlags flags);

// The path of an *at() call, ready for the VFS. Holds what `at` refers to.
class AtPath final {
 public:
  // flags: AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW (overrides `follow`), AT_EMPTY_PATH are understood.
  static Result<AtPath> Make(Task& task, int dirfd, Addr path, int flags, bool follow = true);
  static AtPath FromName(Task& task, vfs::Path start, std::string name, bool follow, bool empty_ok);

  vfs::Walker walker() const { return state_.walker(); }
  vfs::At at() const { return {.start = start_, .name = name_, .follow = follow_, .empty_ok = empty_ok_}; }
  const std::string& name() const { return name_; }
  Result<vfs::Path> Lookup() const { return vfs::Lookup(walker(), at()); }

 private:
  AtPath(Task::WalkState state, vfs::Path start, std::string name, bool follow, bool empty_ok)
      : state_(std::move(state)),
        start_(std::move(start)),
        name_(std::move(name)),
        follow_(follow),
        empty_ok_(empty_ok) {}

  Task::WalkState state_;
  vfs::Path start_;
  std::string name_;
  bool follow_;
  bool empty_ok_;
};

}  // namespace redoubt::syscalls

#endif  // REDOUBT_PKG_SENTRY_SYSCALLS_COMMON_H_
