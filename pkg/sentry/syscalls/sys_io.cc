// Reading and writing: read(2), write(2), pread(2), readv(2), preadv2(2), lseek(2), sendfile(2), copy_file_range(2),
// fsync(2), ...
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "pkg/sentry/syscalls/common.h"
#include "pkg/sentry/syscalls/handlers.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::syscalls {
namespace {

constexpr int kReadFlags = RWF_HIPRI | RWF_NOWAIT;
constexpr int kWriteFlags = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

Result<FdTable::File> Readable(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  if (!file->readable()) return Err(EBADF);
  return file;
}

Result<FdTable::File> Writable(Task& task, int fd) {
  FdTable::File file = TRY(task.File(fd));
  if (!file->writable()) return Err(EBADF);
  return file;
}

// inotify(7): what moved any bytes is told to those who watch the file.
Result<uint64_t> Noted(const vfs::FileDescription& file, uint32_t event, Result<uint64_t> n) {
  if (n && *n > 0) vfs::NoteFile(file, event);
  return n;
}

// RLIMIT_FSIZE (setrlimit(2)): a write is cut at the limit; one that starts there fails with SIGXFSZ and EFBIG.
Result<> ApplyFileSizeLimit(Task& task, vfs::FileDescription& file, IoSequence& src, uint64_t offset) {
  uint64_t limit = task.GetLimit(RLIMIT_FSIZE).soft;
  if (limit == RLIM64_INFINITY || src.empty() || !file.path() || !file.inode().IsRegular()) return {};
  if (offset >= limit) {
    (void)task.kernel().SendToTask(task, MakeKillInfo(SIGXFSZ, SI_USER, task.group().pid->number(), task.creds().ruid));
    return Err(EFBIG);
  }
  src.TakeFirst(limit - offset);
  return {};
}

Result<uint64_t> DoWrite(Task& task, vfs::FileDescription& file, IoSequence src, vfs::IoFlags flags) {
  if (task.GetLimit(RLIMIT_FSIZE).soft != RLIM64_INFINITY && file.path() && file.inode().IsRegular()) {
    uint64_t offset = TRY(file.Seek(0, SEEK_CUR));
    if ((file.flags() & O_APPEND) != 0) offset = TRY(file.GetAttributes()).size;
    TRY(ApplyFileSizeLimit(task, file, src, offset));
  }
  return Noted(file, IN_MODIFY, WriteFile(task, file, src, flags));
}

Result<uint64_t> DoPRead(Task& task, int fd, IoSequence dst, int64_t offset, vfs::IoFlags flags) {
  if (offset < 0) return Err(EINVAL);
  FdTable::File file = TRY(Readable(task, fd));
  return Noted(*file, IN_ACCESS, RunBlocking(*file, waiter::kIn, fiber::kForever, [&]() -> Result<uint64_t> {
    return file->PRead(dst, offset, flags);
  }));
}

Result<uint64_t> DoPWrite(Task& task, int fd, IoSequence src, int64_t offset, vfs::IoFlags flags) {
  if (offset < 0) return Err(EINVAL);
  FdTable::File file = TRY(Writable(task, fd));
  TRY(ApplyFileSizeLimit(task, *file, src, offset));
  auto write = [&]() -> Result<uint64_t> {
    // pwrite(2), BUGS: on Linux O_APPEND wins over the offset.
    if ((file->flags() & O_APPEND) != 0 || (flags & RWF_APPEND) != 0) return TRY(file->Append(src, flags)).bytes;
    return file->PWrite(src, offset, flags);
  };
  return Noted(*file, IN_MODIFY, RunBlocking(*file, waiter::kOut, fiber::kForever, write));
}

// Moves bytes between descriptions through a buffer of the Sentry's. At most one buffer is in flight, and what was read
// and could not be written is taken back where the source has an offset. kNever: as if both descriptions were
// O_NONBLOCK.
enum class Waiting { kAllowed, kNever };
Result<uint64_t> CopyBetween(Task& task, vfs::FileDescription& in, int64_t* in_offset, vfs::FileDescription& out,
                             int64_t* out_offset, uint64_t count, Waiting waiting = Waiting::kAllowed) {
  constexpr size_t kChunk = 64 << 10;
  auto buffer = std::make_unique<std::byte[]>(std::min<uint64_t>(count, kChunk));
  uint64_t total = 0;
  while (total < count) {
    size_t want = std::min<uint64_t>(count - total, kChunk);
    BufferIo io(std::span(buffer.get(), want));
    IoSequence dst(io, 0, want);
    auto read = [&]() -> Result<uint64_t> {
      return in_offset != nullptr ? in.PRead(dst, *in_offset, 0) : in.Read(dst, 0);
    };
    Result<uint64_t> got = waiting == Waiting::kNever ? read() : RunBlocking(in, waiter::kIn, fiber::kForever, read);
    if (!got) {
      if (total > 0) break;
      return got;
    }
    if (*got == 0) break;
    IoSequence src(io, 0, *got);
    Result<uint64_t> put;
    if (out_offset != nullptr) {
      put = RunBlocking(out, waiter::kOut, fiber::kForever,
                        [&]() -> Result<uint64_t> { return out.PWrite(src, *out_offset, 0); });
    } else if (waiting == Waiting::kNever && out.SupportsEpoll()) {
      put = out.Write(src, 0);
    } else {
      put = WriteFile(task, out, src, 0);
    }
    uint64_t written = put.value_or(0);
    if (in_offset != nullptr) {
      *in_offset += written;
    } else if (written < *got) {
      (void)in.Seek(-static_cast<int64_t>(*got - written), SEEK_CUR);
    }
    if (out_offset != nullptr) *out_offset += written;
    total += written;
    if (!put && total == 0) return put;
    if (written < *got) break;
    // A stream that has given what it had ends the call rather than blocking for more.
    if (*got < want && in.SupportsEpoll()) break;
  }
  (void)Noted(in, IN_ACCESS, total);
  return Noted(out, IN_MODIFY, total);
}

// fsync(2): special files that have nothing to synchronize answer EINVAL.
Result<> CheckSyncable(const vfs::FileDescription& file) {
  if ((file.flags() & O_PATH) != 0) return Err(EBADF);
  if (file.path() && (file.inode().type() == S_IFIFO || file.inode().type() == S_IFSOCK)) return Err(EINVAL);
  return {};
}

}  // namespace

Result<uint64_t> Read(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(Readable(task, a.I32(0)));
  IoSequence dst = TRY(Buffer(task, a.Pointer(1), a.Size(2)));
  return Noted(*file, IN_ACCESS, ReadFile(task, *file, dst, 0));
}

Result<uint64_t> Write(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(Writable(task, a.I32(0)));
  return DoWrite(task, *file, TRY(Buffer(task, a.Pointer(1), a.Size(2))), 0);
}

Result<uint64_t> Pread64(Task& task, const SyscallArgs& a) {
  return DoPRead(task, a.I32(0), TRY(Buffer(task, a.Pointer(1), a.Size(2))), a.I64(3), 0);
}

Result<uint64_t> Pwrite64(Task& task, const SyscallArgs& a) {
  return DoPWrite(task, a.I32(0), TRY(Buffer(task, a.Pointer(1), a.Size(2))), a.I64(3), 0);
}

Result<uint64_t> Readv(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(Readable(task, a.I32(0)));
  IoSequence dst = TRY(CopyInIovecs(task, a.Pointer(1), a.Size(2)));
  return Noted(*file, IN_ACCESS, ReadFile(task, *file, dst, 0));
}

Result<uint64_t> Writev(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(Writable(task, a.I32(0)));
  return DoWrite(task, *file, TRY(CopyInIovecs(task, a.Pointer(1), a.Size(2))), 0);
}

Result<uint64_t> Preadv(Task& task, const SyscallArgs& a) {
  return DoPRead(task, a.I32(0), TRY(CopyInIovecs(task, a.Pointer(1), a.Size(2))), a.I64(3), 0);
}

Result<uint64_t> Pwritev(Task& task, const SyscallArgs& a) {
  return DoPWrite(task, a.I32(0), TRY(CopyInIovecs(task, a.Pointer(1), a.Size(2))), a.I64(3), 0);
}

Result<uint64_t> Preadv2(Task& task, const SyscallArgs& a) {
  int flags = a.I32(5);
  if ((flags & ~kReadFlags) != 0) return Err(EOPNOTSUPP);
  IoSequence dst = TRY(CopyInIovecs(task, a.Pointer(1), a.Size(2)));
  if (a.I64(3) != -1) return DoPRead(task, a.I32(0), std::move(dst), a.I64(3), flags);
  FdTable::File file = TRY(Readable(task, a.I32(0)));
  Result<uint64_t> n = (flags & RWF_NOWAIT) != 0 ? file->Read(dst, flags) : ReadFile(task, *file, dst, flags);
  return Noted(*file, IN_ACCESS, n);
}

Result<uint64_t> Pwritev2(Task& task, const SyscallArgs& a) {
  int flags = a.I32(5);
  if ((flags & ~kWriteFlags) != 0) return Err(EOPNOTSUPP);
  IoSequence src = TRY(CopyInIovecs(task, a.Pointer(1), a.Size(2)));
  if (a.I64(3) != -1) return DoPWrite(task, a.I32(0), std::move(src), a.I64(3), flags);
  FdTable::File file = TRY(Writable(task, a.I32(0)));
  return DoWrite(task, *file, std::move(src), flags);
}

Result<uint64_t> Lseek(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  int whence = a.I32(2);
  if (whence < SEEK_SET || whence > SEEK_HOLE) return Err(EINVAL);
  return file->Seek(a.I64(1), whence);
}

Result<uint64_t> Fsync(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  TRY(CheckSyncable(*file));
  TRY(file->Sync(false));
  return 0;
}

Result<uint64_t> Fdatasync(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  TRY(CheckSyncable(*file));
  TRY(file->Sync(true));
  return 0;
}

Result<uint64_t> Sync(Task& task, const SyscallArgs& a) { return 0; }

Result<uint64_t> Syncfs(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if (file->path()) TRY(file->inode().filesystem().Sync());
  return 0;
}

Result<uint64_t> SyncFileRange(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  int64_t end;
  if (a.I64(1) < 0 || a.I64(2) < 0 || __builtin_add_overflow(a.I64(1), a.I64(2), &end)) return Err(EINVAL);
  if ((a.U32(3) & ~7u) != 0) return Err(EINVAL);
  const uint32_t type = file->path() ? file->inode().type() : S_IFIFO;
  if (type != S_IFREG && type != S_IFBLK && type != S_IFDIR && type != S_IFLNK) return Err(ESPIPE);
  TRY(file->Sync(true));
  return 0;
}

Result<uint64_t> Ftruncate(Task& task, const SyscallArgs& a) {
  if (a.I64(1) < 0) return Err(EINVAL);
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  if (!file->writable() || !file->path() || !file->inode().IsRegular()) return Err(EINVAL);
  if (a.U64(1) > task.GetLimit(RLIMIT_FSIZE).soft) {
    (void)task.kernel().SendToTask(task, MakeKillInfo(SIGXFSZ, SI_USER, task.group().pid->number(), task.creds().ruid));
    return Err(EFBIG);
  }
  TRY(vfs::FTruncate(task.creds(), *file, a.U64(1)));
  return 0;
}

Result<uint64_t> Truncate(Task& task, const SyscallArgs& a) {
  if (a.I64(1) < 0) return Err(EINVAL);
  AtPath path = TRY(AtPath::Make(task, AT_FDCWD, a.Pointer(0), 0));
  if (a.U64(1) > task.GetLimit(RLIMIT_FSIZE).soft) {
    (void)task.kernel().SendToTask(task, MakeKillInfo(SIGXFSZ, SI_USER, task.group().pid->number(), task.creds().ruid));
    return Err(EFBIG);
  }
  TRY(vfs::Truncate(path.walker(), TRY(path.Lookup()), a.U64(1)));
  return 0;
}

Result<uint64_t> Fallocate(Task& task, const SyscallArgs& a) {
  int64_t offset = a.I64(2);
  int64_t length = a.I64(3);
  if (offset < 0 || length <= 0) return Err(EINVAL);
  int64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end)) return Err(EFBIG);
  FdTable::File file = TRY(Writable(task, a.I32(0)));
  if (!file->path()) return Err(ENODEV);
  if (file->inode().type() == S_IFIFO) return Err(ESPIPE);
  if (file->inode().IsDirectory()) return Err(EISDIR);
  if (!file->inode().IsRegular()) return Err(ENODEV);
  if (static_cast<uint64_t>(end) > task.GetLimit(RLIMIT_FSIZE).soft) return Err(EFBIG);
  TRY(file->Allocate(a.I32(1), offset, length));
  vfs::NoteFile(*file, IN_MODIFY);
  return 0;
}

Result<uint64_t> Fadvise64(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(task.File(a.I32(0)));
  if ((file->flags() & O_PATH) != 0) return Err(EBADF);
  if (file->path() && file->inode().type() == S_IFIFO) return Err(ESPIPE);
  if (a.I64(2) < 0 || a.I32(3) < POSIX_FADV_NORMAL || a.I32(3) > POSIX_FADV_NOREUSE) return Err(EINVAL);
  return 0;
}

Result<uint64_t> Readahead(Task& task, const SyscallArgs& a) {
  FdTable::File file = TRY(Readable(task, a.I32(0)));
  if (!file->path() || !file->inode().IsRegular()) return Err(EINVAL);
  return 0;
}

Result<uint64_t> Sendfile(Task& task, const SyscallArgs& a) {
  FdTable::File in = TRY(Readable(task, a.I32(1)));
  FdTable::File out = TRY(Writable(task, a.I32(0)));
  if ((out->flags() & O_APPEND) != 0) return Err(EINVAL);
  uint64_t count = std::min<uint64_t>(a.Size(3), kMaxIoBytes);
  if (a.Pointer(2) == 0) return CopyBetween(task, *in, nullptr, *out, nullptr, count);
  int64_t offset = TRY(task.mm().CopyInObject<int64_t>(a.Pointer(2)));
  if (offset < 0) return Err(EINVAL);
  Result<uint64_t> n = CopyBetween(task, *in, &offset, *out, nullptr, count);
  TRY(task.mm().CopyOutObject(a.Pointer(2), offset));
  return n;
}

Result<uint64_t> CopyFileRange(Task& task, const SyscallArgs& a) {
  FdTable::File in = TRY(Readable(task, a.I32(0)));
  FdTable::File out = TRY(Writable(task, a.I32(2)));
  if (a.U32(5) != 0) return Err(EINVAL);
  if (!in->path() || !out->path()) return Err(EINVAL);
  if (in->inode().IsDirectory() || out->inode().IsDirectory()) return Err(EISDIR);
  if (!in->inode().IsRegular() || !out->inode().IsRegular()) return Err(EINVAL);
  if ((out->flags() & O_APPEND) != 0) return Err(EBADF);
  // Asked for, not read from the description: a host file's offset is the host's.
  int64_t in_offset = static_cast<int64_t>(TRY(in->Seek(0, SEEK_CUR)));
  int64_t out_offset = static_cast<int64_t>(TRY(out->Seek(0, SEEK_CUR)));
  if (a.Pointer(1) != 0) in_offset = TRY(task.mm().CopyInObject<int64_t>(a.Pointer(1)));
  if (a.Pointer(3) != 0) out_offset = TRY(task.mm().CopyInObject<int64_t>(a.Pointer(3)));
  if (in_offset < 0 || out_offset < 0) return Err(EINVAL);
  uint64_t count = std::min<uint64_t>(a.Size(4), kMaxIoBytes);
  if (&in->inode() == &out->inode()) {
    int64_t distance = in_offset < out_offset ? out_offset - in_offset : in_offset - out_offset;
    if (static_cast<uint64_t>(distance) < count) return Err(EINVAL);
  }
  uint64_t n = TRY(CopyBetween(task, *in, &in_offset, *out, &out_offset, count));
  if (a.Pointer(1) != 0) {
    TRY(task.mm().CopyOutObject(a.Pointer(1), in_offset));
  } else {
    TRY(in->Seek(in_offset, SEEK_SET));
  }
  if (a.Pointer(3) != 0) {
    TRY(task.mm().CopyOutObject(a.Pointer(3), out_offset));
  } else {
    TRY(out->Seek(out_offset, SEEK_SET));
  }
  return n;
}

// splice(2): one end is a pipe. The bytes are copied, which a program cannot tell from moved pages.
Result<uint64_t> Splice(Task& task, const SyscallArgs& a) {
  if ((a.U32(5) & ~0xfu) != 0) return Err(EINVAL);
  FdTable::File in = TRY(Readable(task, a.I32(0)));
  FdTable::File out = TRY(Writable(task, a.I32(2)));
  bool in_pipe = in->path() && in->inode().type() == S_IFIFO;
  bool out_pipe = out->path() && out->inode().type() == S_IFIFO;
  if (!in_pipe && !out_pipe) return Err(EINVAL);
  if ((in_pipe && a.Pointer(1) != 0) || (out_pipe && a.Pointer(3) != 0)) return Err(ESPIPE);
  if (!out_pipe && (out->flags() & O_APPEND) != 0) return Err(EINVAL);
  int64_t in_offset = 0;
  int64_t out_offset = 0;
  if (a.Pointer(1) != 0) in_offset = TRY(task.mm().CopyInObject<int64_t>(a.Pointer(1)));
  if (a.Pointer(3) != 0) out_offset = TRY(task.mm().CopyInObject<int64_t>(a.Pointer(3)));
  if (in_offset < 0 || out_offset < 0) return Err(EINVAL);
  // No more than a pipe holds, so that one round suffices and nothing read is lost to a full pipe.
  uint64_t count = std::min<uint64_t>(a.Size(4), 64 << 10);
  uint64_t n = TRY(CopyBetween(task, *in, a.Pointer(1) != 0 ? &in_offset : nullptr, *out,
                               a.Pointer(3) != 0 ? &out_offset : nullptr, count,
                               (a.U32(5) & SPLICE_F_NONBLOCK) != 0 ? Waiting::kNever : Waiting::kAllowed));
  if (a.Pointer(1) != 0) TRY(task.mm().CopyOutObject(a.Pointer(1), in_offset));
  if (a.Pointer(3) != 0) TRY(task.mm().CopyOutObject(a.Pointer(3), out_offset));
  return n;
}

}  // namespace redoubt::syscalls
