// Descriptors: open(2), close(2), dup(2), fcntl(2), ioctl(2), getdents64(2), flock(2).
#include <dirent.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <linux/sockios.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include <climits>
#include <cstring>

#include "pkg/sentry/fsimpl/devpts/devpts.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/syscalls/seccomp_notify.h"
#include "pkg/sentry/syscalls/sigio.h"
#include "pkg/sentry/vfs/locks.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::syscalls {
namespace {

constexpr uint64_t kOpenFlags = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC |
                                O_SYNC | O_ASYNC | O_DIRECT | 0100000 /* O_LARGEFILE */ | O_DIRECTORY | O_NOFOLLOW |
                                O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE;
constexpr uint64_t kResolveFlags =
    RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;

Result<uint64_t> DoOpen(Task& task, int dirfd, Addr path, int flags, uint32_t mode, uint64_t resolve) {
  AtPath at = TRY(AtPath::Make(task, dirfd, path, 0, (flags & O_NOFOLLOW) == 0));
  vfs::At where = at.at();
  where.resolve = resolve;
  // In a root of its own an absolute name starts at the directory, too.
  vfs::Path root;
  if ((resolve & RESOLVE_IN_ROOT) != 0) root = TRY(task.AtStart(task.Walk(), dirfd, ""));
  vfs::At in_root{
      .start = root, .name = where.name, .follow = where.follow, .empty_ok = where.empty_ok, .resolve = resolve};
  RefPtr<vfs::FileDescription> file = TRY(vfs::Open(
      at.walker(), root ? in_root : where, {.flags = flags & ~O_CLOEXEC, .mode = mode & 07777, .resolve = resolve}));
  return TRY(task.InstallFd(std::move(file), (flags & O_CLOEXEC) != 0));
}

Result<uint64_t> Dup(Task& task, int fd, int minimum, bool cloexec) {
  FdTable::File file = TRY(task.File(fd));
  return TRY(task.InstallFd(std::move(file), cloexec, minimum));
}

// struct flock as the kernel has it on x86-64 is glibc's. Fills start and end of `record`.
Result<> SetRange(vfs::FileDescription& file, const struct flock& lock, vfs::RecordLock& record) {
  int64_t base = 0;
  switch (lock.l_whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = static_cast<int64_t>(TRY(file.Seek(0, SEEK_CUR)));
      break;
    case SEEK_END:
      base = static_cast<int64_t>(TRY(file.GetAttributes()).size);
      break;
    default:
      return Err(EINVAL);
  }
  int64_t start = 0;
  int64_t end = 0;
  if (__builtin_add_overflow(base, lock.l_start, &start)) return Err(EOVERFLOW);
  if (__builtin_add_overflow(start, lock.l_len, &end)) return Err(EOVERFLOW);
  // fcntl(2): a negative length lies before l_start; 0 reaches to the end, however far that will be.
  if (lock.l_len < 0) std::swap(start, end);
  if (start < 0) return Err(EINVAL);
  record.start = static_cast<uint64_t>(start);
  record.end = lock.l_len == 0 ? vfs::RecordLock::kEndOfFile : static_cast<uint64_t>(end);
  return {};
}

Result<uint64_t> RecordLock(Task& task, vfs::FileDescription& file, int command, Addr addr) {
  struct flock lock = TRY(task.mm().CopyInObject<struct flock>(addr));
  bool ofd = command == F_OFD_GETLK || command == F_OFD_SETLK || command == F_OFD_SETLKW;
  if (ofd && lock.l_pid != 0) return Err(EINVAL);
  if (lock.l_type != F_RDLCK && lock.l_type != F_WRLCK && lock.l_type != F_UNLCK) return Err(EINVAL);
  if (!file.path()) return Err(EBADF);
  vfs::RecordLock record;
  TRY(SetRange(file, lock, record));
  record.kind = ofd ? vfs::RecordKind::kOfd : vfs::RecordKind::kPosix;
  record.owner = ofd ? static_cast<const void*>(&file) : static_cast<const void*>(&task.fds());
  record.pid = ofd ? -1 : task.group().id;
  record.type = lock.l_type == F_RDLCK   ? vfs::LockType::kRead
                : lock.l_type == F_WRLCK ? vfs::LockType::kWrite
                                         : vfs::LockType::kUnlock;
  vfs::FileLocks& locks = file.inode().locks();
  if (command == F_GETLK || command == F_OFD_GETLK) {
    if (lock.l_type == F_UNLCK) return Err(EINVAL);
    std::optional<vfs::RecordLock> conflict = locks.TestRecord(record);
    if (!conflict) {
      lock.l_type = F_UNLCK;
    } else {
      lock.l_type = conflict->type == vfs::LockType::kRead ? F_RDLCK : F_WRLCK;
      lock.l_whence = SEEK_SET;
      lock.l_start = static_cast<int64_t>(conflict->start);
      lock.l_len =
          conflict->end == vfs::RecordLock::kEndOfFile ? 0 : static_cast<int64_t>(conflict->end - conflict->start);
      lock.l_pid = conflict->pid < 0 ? conflict->pid : task.pid_ns().FromRoot(conflict->pid);
    }
    TRY(task.mm().CopyOutObject(addr, lock));
    return 0;
  }
  if (lock.l_type == F_RDLCK && !file.readable()) return Err(EBADF);
  if (lock.l_type == F_WRLCK && !file.writable()) return Err(EBADF);
  bool wait = command == F_SETLKW || command == F_OFD_SETLKW;
  TRY(locks.SetRecord(record, wait ? vfs::LockWait::kYes : vfs::LockWait::kNo));
  return 0;
}

// Fills linux_dirent64 records (getdents(2)) into a buffer of the Sentry's.
class Dirent64Sink final : public vfs::DirentSink {
 public:
  explicit Dirent64Sink(size_t room) : room_(room) {}

  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t next_offset) override {
    // d_ino 8, d_off 8, d_reclen 2, d_type 1, name and NUL, padded to 8.
    size_t length = (19 + name.size() + 1 + 7) & ~size_t{7};
    if (bytes_.size() + length > room_) {
      full_ = true;
      return false;
    }
    size_t at = bytes_.size();
    bytes_.resize(at + length);
    std::byte* p = bytes_.data() + at;
    uint16_t record_length = static_cast<uint16_t>(length);
    std::memcpy(p, &ino, 8);
    std::memcpy(p + 8, &next_offset, 8);
    std::memcpy(p + 16, &record_length, 2);
    std::memcpy(p + 18, &type, 1);
    std::memcpy(p + 19, name.data(), name.size());
    return true;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool full() const { return full_; }

 private:
  const size_t room_;
  std::vector<std::byte> bytes_;
  bool full_ = false;
};

// The same for linux_dirent records, which have the type in their last byte.
class DirentSink final : public vfs::DirentSink {
 public:
  explicit DirentSink(size_t room) : room_(room) {}

  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t next_offset) override {
    // d_ino 8, d_off 8, d_reclen 2, name and NUL, type 1, padded to 8.
    size_t length = (18 + name.size() + 2 + 7) & ~size_t{7};
    if (bytes_.size() + length > room_) {
      full_ = true;
      return false;
    }
    size_t at = bytes_.size();
    bytes_.resize(at + length);
    std::byte* p = bytes_.data() + at;
    uint16_t record_length = static_cast<uint16_t>(length);
    std::memcpy(p, &ino, 8);
    std::memcpy(p + 8, &next_offset, 8);
    std::memcpy(p + 16, &record_length, 2);
    std::memcpy(p + 18, name.data(), name.size());
    std::memcpy(p + length - 1, &type, 1);
    return true;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool full() const { return full_; }

 private:
  const size_t room_;
  std::vector<std::byte> bytes_;
  bool full_ = false;
};

template <typename Sink>
Result<uint64_t> DoGetdents(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if (!file->readable()) return Err(EBADF);
  Sink sink(std::min<size_t>(a.U32(2), 1 << 20));
  TRY(file->Getdents(sink));
  vfs::NoteFile(*file, IN_ACCESS);
  if (sink.bytes().empty() && sink.full()) return Err(EINVAL);
  TRY(task.mm().CopyOutAll(a.Pointer(1), sink.bytes()));
  return sink.bytes().size();
}

// F_SETFL, with what O_ASYNC sets off.
Result<uint64_t> SetFlags(Task& task, int fd, vfs::FileDescription& file, int flags) {
  const int old = file.flags();
  TRY(file.SetStatusFlags(flags));
  if (((old ^ file.flags()) & O_ASYNC) != 0) TRY(SetSigio(task, fd, file, (file.flags() & O_ASYNC) != 0));
  return 0;
}

// F_SETOWN, SIOCSPGRP: a negative number is a process group's.
f_owner_ex OwnerOfNumber(int id) { return {.type = id < 0 ? F_OWNER_PGRP : F_OWNER_PID, .pid = id < 0 ? -id : id}; }

}  // namespace

Result<uint64_t> Open(Task& task, const SyscallArgs& a) {
  return DoOpen(task, AT_FDCWD, a.Pointer(0), static_cast<int>(a.U32(1) & kOpenFlags), a.U32(2), 0);
}

Result<uint64_t> Openat(Task& task, const SyscallArgs& a) {
  return DoOpen(task, a.I32(0), a.Pointer(1), static_cast<int>(a.U32(2) & kOpenFlags), a.U32(3), 0);
}

Result<uint64_t> Creat(Task& task, const SyscallArgs& a) {
  return DoOpen(task, AT_FDCWD, a.Pointer(0), O_CREAT | O_WRONLY | O_TRUNC, a.U32(1), 0);
}

Result<uint64_t> Openat2(Task& task, const SyscallArgs& a) {
  size_t size = a.Size(3);
  if (size < sizeof(open_how)) return Err(EINVAL);
  if (size > kPageSize) return Err(E2BIG);
  std::vector<std::byte> raw = TRY(task.mm().CopyInVector<std::byte>(a.Pointer(2), size));
  open_how how{};
  std::memcpy(&how, raw.data(), sizeof(how));
  for (size_t i = sizeof(how); i < size; i++) {
    if (raw[i] != std::byte{0}) return Err(E2BIG);
  }
  // Unlike openat, unknown flags and a mode without O_CREAT are errors (openat2(2)).
  if ((how.flags & ~kOpenFlags) != 0 || (how.resolve & ~kResolveFlags) != 0) return Err(EINVAL);
  bool creates = (how.flags & O_CREAT) != 0 || (how.flags & O_TMPFILE) == O_TMPFILE;
  if ((how.mode & ~uint64_t{07777}) != 0 || (!creates && how.mode != 0)) return Err(EINVAL);
  if ((how.resolve & RESOLVE_BENEATH) != 0 && (how.resolve & RESOLVE_IN_ROOT) != 0) return Err(EINVAL);
  if ((how.flags & O_PATH) != 0 &&
      (how.flags & ~static_cast<uint64_t>(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) != 0) {
    return Err(EINVAL);
  }
  return DoOpen(task, a.I32(0), a.Pointer(1), static_cast<int>(how.flags), static_cast<uint32_t>(how.mode),
                how.resolve);
}

Result<uint64_t> Close(Task& task, const SyscallArgs& a) {
  TRY(task.fds().Close(a.I32(0)));
  return 0;
}

Result<uint64_t> CloseRange(Task& task, const SyscallArgs& a) {
  uint32_t flags = a.U32(2);
  if ((flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) != 0 || a.U32(0) > a.U32(1)) return Err(EINVAL);
  if ((flags & CLOSE_RANGE_UNSHARE) != 0) task.SetFds(task.fds().Clone());
  task.fds().CloseRange(a.U32(0), a.U32(1), (flags & CLOSE_RANGE_CLOEXEC) != 0);
  return 0;
}

Result<uint64_t> Dup(Task& task, const SyscallArgs& a) { return Dup(task, a.I32(0), 0, false); }

Result<uint64_t> Dup2(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if (a.I32(0) == a.I32(1)) return a.I32(1);
  TRY(task.fds().InstallAt(a.I32(1), std::move(file), false, task.GetLimit(RLIMIT_NOFILE).soft));
  return a.I32(1);
}

Result<uint64_t> Dup3(Task& task, const SyscallArgs& a) {
  if ((a.I32(2) & ~O_CLOEXEC) != 0 || a.I32(0) == a.I32(1)) return Err(EINVAL);
  FdTable::File file = TRY(task.File(a.I32(0)));
  TRY(task.fds().InstallAt(a.I32(1), std::move(file), (a.I32(2) & O_CLOEXEC) != 0, task.GetLimit(RLIMIT_NOFILE).soft));
  return a.I32(1);
}

Result<uint64_t> Fcntl(Task& task, const SyscallArgs& a) {
  int fd = a.I32(0);
  int command = a.I32(1);
  FdTable::File file = TRY(task.File(fd));
  bool path_only = (file->flags() & O_PATH) != 0;
  if (path_only && command != F_DUPFD && command != F_DUPFD_CLOEXEC && command != F_GETFD && command != F_SETFD &&
      command != F_GETFL) {
    return Err(EBADF);
  }
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: {
      if (a.I32(2) < 0 || a.U64(2) >= task.GetLimit(RLIMIT_NOFILE).soft) return Err(EINVAL);
      return Dup(task, fd, a.I32(2), command == F_DUPFD_CLOEXEC);
    }
    case F_GETFD:
      return TRY(task.fds().GetCloexec(fd)) ? FD_CLOEXEC : 0;
    case F_SETFD:
      TRY(task.fds().SetCloexec(fd, (a.U32(2) & FD_CLOEXEC) != 0));
      return 0;
    case F_GETFL:
      return static_cast<uint64_t>(file->flags() & ~O_CLOEXEC);
    case F_SETFL:
      return TRY(SetFlags(task, fd, *file, a.I32(2)));
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      return RecordLock(task, *file, command, a.Pointer(2));
    case F_SETOWN: {
      const int id = a.I32(2);
      if (id == INT_MIN) return Err(EINVAL);
      TRY(SetSigioOwner(task, fd, *file, OwnerOfNumber(id)));
      return 0;
    }
    case F_SETOWN_EX:
      TRY(SetSigioOwner(task, fd, *file, TRY(task.mm().CopyInObject<f_owner_ex>(a.Pointer(2)))));
      return 0;
    case F_GETOWN: {
      const f_owner_ex owner = GetSigioOwner(task, *file);
      return static_cast<uint64_t>(owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid);
    }
    case F_GETOWN_EX:
      TRY(task.mm().CopyOutObject(a.Pointer(2), GetSigioOwner(task, *file)));
      return 0;
    case F_SETSIG:
      TRY(SetSigioSignal(task, fd, *file, a.U64(2)));
      return 0;
    case F_GETSIG:
      return static_cast<uint64_t>(GetSigioSignal(task, *file));
    case F_NOTIFY:
    case F_SETLEASE:
      return Err(EINVAL);
    case F_GETLEASE:
      return F_UNLCK;
    case F_GETPIPE_SZ:
    case F_SETPIPE_SZ:
      if (!file->path() || file->inode().type() != S_IFIFO) return Err(EBADF);
      return file->Fcntl(command, a.U64(2));
    case F_ADD_SEALS:
    case F_GET_SEALS:
      return file->Fcntl(command, a.U64(2));
    default:
      return Err(EINVAL);
  }
}

Result<uint64_t> Ioctl(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  switch (a.U32(1)) {
    case FIOCLEX:
      TRY(task.fds().SetCloexec(a.I32(0), true));
      return 0;
    case FIONCLEX:
      TRY(task.fds().SetCloexec(a.I32(0), false));
      return 0;
    case FIOASYNC: {
      if (!file->SupportsEpoll()) return Err(ENOTTY);
      int32_t on = TRY(task.mm().CopyInObject<int32_t>(a.Pointer(2)));
      return TRY(SetFlags(task, a.I32(0), *file, on != 0 ? file->flags() | O_ASYNC : file->flags() & ~O_ASYNC));
    }
    case FIOSETOWN:
    case SIOCSPGRP: {
      if (!RefCast<socket::Socket>(file)) return file->Ioctl(task.mm(), a.U32(1), a.U64(2));
      const int id = TRY(task.mm().CopyInObject<int32_t>(a.Pointer(2)));
      if (id == INT_MIN) return Err(EINVAL);
      TRY(SetSigioOwner(task, a.I32(0), *file, OwnerOfNumber(id)));
      return 0;
    }
    case FIOGETOWN:
    case SIOCGPGRP: {
      if (!RefCast<socket::Socket>(file)) return file->Ioctl(task.mm(), a.U32(1), a.U64(2));
      const f_owner_ex owner = GetSigioOwner(task, *file);
      TRY(task.mm().CopyOutObject<int32_t>(a.Pointer(2), owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid));
      return 0;
    }
    case FIONBIO: {
      int32_t on = TRY(task.mm().CopyInObject<int32_t>(a.Pointer(2)));
      TRY(file->SetStatusFlags(on != 0 ? file->flags() | O_NONBLOCK : file->flags() & ~O_NONBLOCK));
      return 0;
    }
    case TIOCGPTPEER:
      return TRY(task.InstallFd(TRY(devpts::OpenPeer(*file, a.I32(2) & ~O_CLOEXEC)), (a.I32(2) & O_CLOEXEC) != 0));
    case FIONREAD:
      if (file->path() && file->inode().IsRegular()) {
        int64_t left =
            static_cast<int64_t>(TRY(file->GetAttributes()).size) - static_cast<int64_t>(TRY(file->Seek(0, SEEK_CUR)));
        TRY(task.mm().CopyOutObject<int32_t>(a.Pointer(2), static_cast<int32_t>(left)));
        return 0;
      }
      break;
    default:
      break;
  }
  if (auto* notify = dynamic_cast<SeccompNotifyDescription*>(file.get()); notify != nullptr) {
    return notify->Control(task, a.U32(1), a.Pointer(2));
  }
  return file->Ioctl(task.mm(), a.U32(1), a.U64(2));
}

Result<uint64_t> Getdents(Task& task, const SyscallArgs& a) { return DoGetdents<DirentSink>(task, a); }
Result<uint64_t> Getdents64(Task& task, const SyscallArgs& a) { return DoGetdents<Dirent64Sink>(task, a); }

Result<uint64_t> Flock(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  int operation = a.I32(1);
  if (!file->path()) return Err(EINVAL);
  vfs::LockWait wait = (operation & LOCK_NB) != 0 ? vfs::LockWait::kNo : vfs::LockWait::kYes;
  vfs::LockType type;
  switch (operation & ~LOCK_NB) {
    case LOCK_SH:
      type = vfs::LockType::kRead;
      break;
    case LOCK_EX:
      type = vfs::LockType::kWrite;
      break;
    case LOCK_UN:
      type = vfs::LockType::kUnlock;
      break;
    default:
      return Err(EINVAL);
  }
  TRY(file->inode().locks().Flock(file.get(), type, wait));
  return 0;
}

}  // namespace redoubt::syscalls
