#include "pkg/sentry/syscalls/common.h"

#include <sys/time.h>

#include <algorithm>

namespace redoubt::syscalls {
namespace {

// Addresses at and above this are the kernel's (Linux's TASK_SIZE_MAX, one page short of 2^47).
constexpr Addr kTaskSize = 0x7ffffffff000;

// signal(7): a call on a socket with a time-out is EAGAIN when that passes, and does not restart when interrupted.
Result<uint64_t> AtDeadline(fiber::Time deadline, Result<uint64_t> result) {
  if (result || deadline == fiber::kForever) return result;
  if (result.error() == Errno(ETIMEDOUT)) return Err(EAGAIN);
  if (result.error() == kErestartsys) return Err(EINTR);
  return result;
}

}  // namespace

Result<std::string> CopyInPath(Task& task, Addr addr) { return task.mm().CopyInString(addr, kPathMax); }

Result<IoSequence> Buffer(Task& task, Addr addr, size_t length) {
  length = std::min(length, kMaxIoBytes);
  AddrRange range;
  if (!ToRange(addr, length, &range) || range.end > kTaskSize) return Err(EFAULT);
  return IoSequence(task.mm(), addr, length);
}

Result<std::vector<AddrRange>> CopyInIovecRanges(Task& task, Addr addr, size_t count) {
  if (count > kMaxIovecs) return Err(EINVAL);
  std::vector<iovec> vectors = TRY(task.mm().CopyInVector<iovec>(addr, count));
  std::vector<AddrRange> ranges;
  ranges.reserve(count);
  size_t total = 0;
  for (const iovec& v : vectors) {
    if (static_cast<ssize_t>(v.iov_len) < 0) return Err(EINVAL);
    size_t length = std::min(v.iov_len, kMaxIoBytes - total);
    AddrRange range;
    if (!ToRange(reinterpret_cast<Addr>(v.iov_base), length, &range) || range.end > kTaskSize) return Err(EFAULT);
    total += length;
    if (!range.empty()) ranges.push_back(range);
  }
  return ranges;
}

Result<IoSequence> CopyInIovecs(Task& task, Addr addr, size_t count) {
  return IoSequence(task.mm(), TRY(CopyInIovecRanges(task, addr, count)));
}

Result<clock::Nanoseconds> CopyInTimespec(Task& task, Addr addr) {
  timespec ts = TRY(task.mm().CopyInObject<timespec>(addr));
  if (ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= 1'000'000'000) return Err(EINVAL);
  return clock::FromTimespec(ts);
}

Result<clock::Nanoseconds> CopyInTimeval(Task& task, Addr addr) {
  timeval tv = TRY(task.mm().CopyInObject<timeval>(addr));
  if (tv.tv_sec < 0 || tv.tv_usec < 0 || tv.tv_usec >= 1'000'000) return Err(EINVAL);
  return clock::FromTimespec({.tv_sec = tv.tv_sec, .tv_nsec = tv.tv_usec * 1000});
}

Result<> CopyOutTimespec(Task& task, Addr addr, clock::Nanoseconds ns) {
  return task.mm().CopyOutObject(addr, clock::ToTimespec(ns));
}

fiber::Time DeadlineAfter(clock::Nanoseconds duration) {
  fiber::Time deadline = 0;
  if (__builtin_add_overflow(fiber::Now(), duration, &deadline)) return fiber::kForever;
  return deadline;
}

Result<uint64_t> ReadFile(Task& task, vfs::FileDescription& file, IoSequence& dst, vfs::IoFlags flags) {
  const fiber::Time deadline = file.ReadDeadline();
  return AtDeadline(
      deadline, RunBlocking(file, waiter::kIn, deadline, [&]() -> Result<uint64_t> { return file.Read(dst, flags); }));
}

Result<uint64_t> WriteFile(Task& task, vfs::FileDescription& file, IoSequence& src, vfs::IoFlags flags) {
  uint64_t total = 0;
  Errno failure{EAGAIN};
  bool once = false;
  const fiber::Time deadline = file.WriteDeadline();
  while (!once || !src.empty()) {
    once = true;
    Result<uint64_t> n = AtDeadline(deadline, RunBlocking(file, waiter::kOut, deadline, [&]() -> Result<uint64_t> {
                                      return file.Write(src, flags);
                                    }));
    if (!n) {
      failure = n.error();
      break;
    }
    total += *n;
    if (src.empty()) return total;
    // A short write of something that does not block (a full disk, RLIMIT_FSIZE) ends here; a stream waits for room.
    if (*n == 0 || file.nonblocking() || !file.SupportsEpoll()) return total;
  }
  if (failure == Errno(EPIPE) && file.RaisesSigpipe()) {
    (void)task.kernel().SendToTask(task, MakeKillInfo(SIGPIPE, SI_USER, task.group().pid->number(), task.creds().ruid));
  }
  if (total > 0) return total;
  return Err(failure);
}

Result<AtPath> AtPath::Make(Task& task, int dirfd, Addr path, int flags, bool follow) {
  std::string name;
  bool empty_ok = (flags & AT_EMPTY_PATH) != 0;
  // Since 6.11 a null path is an empty one with AT_EMPTY_PATH.
  if (path != 0 || !empty_ok) name = TRY(CopyInPath(task, path));
  if ((flags & AT_SYMLINK_NOFOLLOW) != 0) follow = false;
  if ((flags & AT_SYMLINK_FOLLOW) != 0) follow = true;
  Task::WalkState state = task.Walk();
  vfs::Path start = TRY(task.AtStart(state, dirfd, name));
  return AtPath(std::move(state), std::move(start), std::move(name), follow, empty_ok);
}

AtPath AtPath::FromName(Task& task, vfs::Path start, std::string name, bool follow, bool empty_ok) {
  return AtPath(task.Walk(), std::move(start), std::move(name), follow, empty_ok);
}

}  // namespace redoubt::syscalls
