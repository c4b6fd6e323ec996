#include "pkg/sentry/vfs/file_description.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#include <limits>
#include <utility>

#include "pkg/sentry/vfs/locks.h"
#include "pkg/sentry/vfs/mount.h"
#include "pkg/sentry/vfs/vfs.h"
#include "pkg/sentry/vfs/watch.h"

namespace redoubt::vfs {

namespace {

constexpr int kChangeable = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK;
// open(2)'s flags that do not stay with the description.
constexpr int kOpenOnly = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;
constinit std::atomic<int64_t> count{0};

constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();

}  // namespace

FileDescription::FileDescription(Path path, int flags)
    : path_(std::move(path)),
      readable_((flags & O_PATH) == 0 && (((flags & O_ACCMODE) + 1) & 1) != 0),
      writable_((flags & O_PATH) == 0 && (((flags & O_ACCMODE) + 1) & 2) != 0),
      flags_(flags & ~kOpenOnly),
      counted_writer_(writable_ && path_ && path_.inode().IsRegular()) {
  count.fetch_add(1, std::memory_order_relaxed);
  if (counted_writer_) path_.mount->AddWriter();
}

FileDescription::~FileDescription() {
  count.fetch_sub(1, std::memory_order_relaxed);
  if (!path_) return;
  if ((flags() & (O_PATH | kOpenUntold)) == 0) NoteFile(*this, writable_ ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
  if (counted_writer_) path_.mount->DropWriter();
  if (FileLocks* locks = path_.inode().locks_if_any()) locks->ReleaseDescription(this);
}

int64_t FileDescription::Count() { return count.load(std::memory_order_relaxed); }

bool FileDescription::nonblocking() const { return (flags() & O_NONBLOCK) != 0; }

Result<> FileDescription::SetStatusFlags(int flags) {
  int old = flags_.load(std::memory_order_relaxed);
  while (!flags_.compare_exchange_weak(old, (old & ~kChangeable) | (flags & kChangeable), std::memory_order_relaxed)) {
  }
  return {};
}

Result<size_t> FileDescription::Read(IoSequence& dst, IoFlags flags) {
  fiber::MutexLock lock(offset_mu_);
  const uint64_t at = offset();
  size_t n = TRY(PRead(dst, at, flags));
  set_offset(at + n);
  return n;
}

Result<size_t> FileDescription::Write(IoSequence& src, IoFlags flags) {
  fiber::MutexLock lock(offset_mu_);
  if ((this->flags() & O_APPEND) || (flags & RWF_APPEND)) {
    Appended appended = TRY(Append(src, flags));
    set_offset(appended.end);
    return appended.bytes;
  }
  const uint64_t at = offset();
  size_t n = TRY(PWrite(src, at, flags));
  set_offset(at + n);
  return n;
}

Result<size_t> FileDescription::PRead(IoSequence& dst, uint64_t offset, IoFlags flags) { return Err(ESPIPE); }
Result<size_t> FileDescription::PWrite(IoSequence& src, uint64_t offset, IoFlags flags) { return Err(ESPIPE); }

Result<FileDescription::Appended> FileDescription::Append(IoSequence& src, IoFlags flags) {
  Attributes attrs = TRY(GetAttributes());
  size_t n = TRY(PWrite(src, attrs.size, flags));
  return Appended{n, attrs.size + n};
}

Result<uint64_t> FileDescription::Seek(int64_t offset, int whence) {
  if (!path_) return Err(ESPIPE);
  const uint32_t type = inode().type();
  if (type == S_IFIFO || type == S_IFSOCK || type == 0) return Err(ESPIPE);
  fiber::MutexLock lock(offset_mu_);
  int64_t base = 0;
  switch (whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = static_cast<int64_t>(this->offset());
      break;
    case SEEK_END:
    case SEEK_DATA:
    case SEEK_HOLE: {
      Attributes attrs = TRY(GetAttributes());
      if (whence == SEEK_END) {
        base = static_cast<int64_t>(attrs.size);
        break;
      }
      // All data, then the hole that every file ends with.
      if (offset < 0 || static_cast<uint64_t>(offset) >= attrs.size) return Err(ENXIO);
      if (whence == SEEK_HOLE) offset = static_cast<int64_t>(attrs.size);
      break;
    }
    default:
      return Err(EINVAL);
  }
  int64_t at = 0;
  if (__builtin_add_overflow(base, offset, &at)) return Err(offset > 0 ? EOVERFLOW : EINVAL);
  if (at < 0) return Err(EINVAL);
  static_assert(kMaxOffset == INT64_MAX);
  set_offset(static_cast<uint64_t>(at));
  return static_cast<uint64_t>(at);
}

Result<> FileDescription::Getdents(DirentSink& sink) { return Err(ENOTDIR); }

waiter::EventMask FileDescription::Readiness(waiter::EventMask mask) {
  return mask & (waiter::kIn | waiter::kOut | waiter::kRdNorm | waiter::kWrNorm);
}

std::string FileDescription::MappedName() const { return path_ ? PathName(Path(), path_).name : std::string(); }

uint64_t FileDescription::MappedDevice() const {
  if (!path_) return 0;
  Result<Attributes> attrs = inode().GetAttributes();
  return attrs ? attrs->dev : 0;
}

uint64_t FileDescription::MappedInode() const {
  if (!path_) return 0;
  Result<Attributes> attrs = inode().GetAttributes();
  return attrs ? attrs->ino : 0;
}

}  // namespace redoubt::vfs
