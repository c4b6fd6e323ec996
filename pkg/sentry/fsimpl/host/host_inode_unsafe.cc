// All calls to the host that imported descriptors need.
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "pkg/abi/linux/termios.h"
#include "pkg/sentry/fsimpl/host/host_inode.h"
#include "pkg/sentry/fsimpl/host/host_terminal.h"
#include "pkg/sentry/fsimpl/host/poller.h"
#include "pkg/sentry/vfs/anon_inode.h"

namespace redoubt::host {

namespace {

// As of a system call: -1 and errno.
ssize_t Done(Result<size_t> r) {
  if (r) return static_cast<ssize_t>(*r);
  errno = r.error().value();
  return -1;
}

// All of a regular file's range, as far as the file goes: the host may do a part at once and the rest only if it may
// wait. `some`: does a part from the so many bytes on that are done.
template <typename Some>
ssize_t Whole(size_t size, Some&& some) {
  size_t done = 0;
  while (done < size) {
    Result<size_t> n = some(done);
    if (!n && done == 0) return Done(n);
    if (!n || *n == 0) break;
    done += *n;
  }
  return static_cast<ssize_t>(done);
}

// The terminals imported, so that stdin, stdout and stderr of one terminal are one for the guest's job control too.
struct Terminals {
  struct Entry {
    dev_t rdev;
    bool read_write;
    HostInode* inode;  // living or dying: its destructor takes it out
  };
  sync::Mutex mu{sync::Rank::kLeaf};
  std::vector<Entry> entries GUARDED_BY(mu);

  static Terminals& Get() {
    static Terminals* const terminals = new Terminals();
    return *terminals;
  }
  RefPtr<HostInode> Find(dev_t rdev, bool read_write) {
    sync::MutexLock lock(mu);
    for (const Entry& e : entries) {
      if (e.rdev == rdev && e.read_write == read_write && e.inode->TryIncRef())
        return RefPtr<HostInode>::Adopt(e.inode);
    }
    return nullptr;
  }
};

clock::Nanoseconds Time(const timespec& ts) { return clock::FromTimespec(ts); }

}  // namespace

Result<RefPtr<HostInode>> HostInode::Create(int fd, uint32_t uid, uint32_t gid) {
  struct stat st;
  if (Result<> r = hostio::Stat(fd, st); !r) {
    ::close(fd);
    return Err(r.error());
  }
  Kind kind;
  abi::Termios termios;
  switch (st.st_mode & S_IFMT) {
    case S_IFREG:
      kind = Kind::kRegular;
      break;
    case S_IFIFO:
      kind = Kind::kPipe;
      break;
    case S_IFSOCK:
      kind = Kind::kSocket;
      break;
    case S_IFCHR:
      kind = ::ioctl(fd, TCGETS, &termios) == 0 ? Kind::kTerminal : Kind::kCharDevice;
      break;
    default:
      ::close(fd);
      return Err(EINVAL);
  }
  const bool read_write = (::fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
  if (kind == Kind::kTerminal && read_write) {
    if (RefPtr<HostInode> known = Terminals::Get().Find(st.st_rdev, true)) {
      ::close(fd);
      return known;
    }
  }
  RefPtr<HostInode> inode(new HostInode(vfs::AnonymousFilesystem(), fd, kind, st.st_mode & S_IFMT, uid, gid));
  inode->poll_id_ = Poller::Get().Add(fd, inode->queue_);
  if (kind == Kind::kTerminal) {
    RefPtr<HostInode> other = Terminals::Get().Find(st.st_rdev, true);
    if (!other) other = Terminals::Get().Find(st.st_rdev, false);
    inode->terminal_ = other ? other->terminal_ : MakeRef<HostTerminal>(*inode);
    sync::MutexLock lock(Terminals::Get().mu);
    Terminals::Get().entries.push_back({st.st_rdev, read_write, inode.get()});
  }
  return inode;
}

HostInode::HostInode(vfs::Filesystem& fs, int fd, Kind kind, uint32_t type, uint32_t uid, uint32_t gid)
    : Inode(fs), fd_(fd), io_(fd), kind_(kind), type_(type), uid_(uid), gid_(gid), ino_(vfs::NextAnonymousIno()) {}

HostInode::~HostInode() {
  if (terminal_) {
    terminal_->Forget(*this);
    sync::MutexLock lock(Terminals::Get().mu);
    std::erase_if(Terminals::Get().entries, [this](const Terminals::Entry& e) { return e.inode == this; });
  }
  Poller::Get().Remove(poll_id_, fd_);
  ::close(fd_);
}

Result<vfs::Attributes> HostInode::GetAttributes() {
  struct stat st;
  TRY(hostio::Stat(fd_, st));
  return vfs::Attributes{.mode = type_ | (st.st_mode & 07777),
                         .uid = uid_,
                         .gid = gid_,
                         .ino = ino_,
                         .dev = filesystem().dev(),
                         .rdev = st.st_rdev,
                         .size = static_cast<uint64_t>(st.st_size),
                         .blocks = static_cast<uint64_t>(st.st_blocks),
                         .blksize = static_cast<uint32_t>(st.st_blksize),
                         .atime = Time(st.st_atim),
                         .mtime = Time(st.st_mtim),
                         .ctime = Time(st.st_ctim)};
}

Result<> HostInode::SetAttributes(const vfs::AttributeChange& change) {
  // The host's file is the user's: its contents may change, its owner, mode and times not.
  if (!change.size) return Err(EPERM);
  if (::ftruncate(fd_, static_cast<off_t>(*change.size)) != 0) return ErrFromHost();
  return {};
}

template <typename Call>
Result<size_t> HostInode::ReadBy(IoSequence& dst, Call&& call) {
  std::vector<std::byte> buffer(std::min<uint64_t>(dst.remaining(), kMaxTransfer));
  ssize_t n = call(buffer.data(), buffer.size());
  if (n < 0) return ErrFromHost();
  if (n == 0) return size_t{0};
  return dst.CopyOut({buffer.data(), static_cast<size_t>(n)});
}

template <typename Call>
Result<size_t> HostInode::WriteBy(IoSequence& src, Call&& call) {
  size_t done = 0;
  std::vector<std::byte> buffer(std::min<uint64_t>(src.remaining(), kMaxTransfer));
  while (!src.empty()) {
    // What the host does not take stays in `src`: a copy of it is read here and dropped from it after.
    IoSequence part = src.First(std::min<uint64_t>(src.remaining(), buffer.size()));
    Result<size_t> copied = part.CopyIn(std::span(buffer).first(part.remaining()));
    if (!copied) return done > 0 ? Result<size_t>(done) : copied;
    ssize_t n = call(buffer.data(), *copied);
    if (n < 0) {
      if (done > 0) break;
      return ErrFromHost();
    }
    src.DropFirst(static_cast<uint64_t>(n));
    done += static_cast<size_t>(n);
    if (static_cast<size_t>(n) < *copied) break;
  }
  return done;
}

Result<size_t> HostInode::Read(IoSequence& dst) {
  if (dst.empty()) return size_t{0};
  return ReadBy(dst, [this](void* data, size_t size) -> ssize_t {
    switch (kind_) {
      case Kind::kRegular:
        return Whole(size, [&](size_t done) { return io_.Read({static_cast<std::byte*>(data) + done, size - done}); });
      case Kind::kSocket:  // with RWF_NOWAIT since Linux 6.4
      case Kind::kPipe: {
        iovec iov{data, size};
        ssize_t n = ::preadv2(fd_, &iov, 1, -1, RWF_NOWAIT);
        if (n >= 0 || (errno != EOPNOTSUPP && errno != EINVAL)) return n;
        break;
      }
      default:
        break;
    }
    // Another process could take what poll saw, and the read would wait for more: the slot is lent meanwhile.
    if ((Poll(waiter::kIn) & (waiter::kIn | waiter::kHup | waiter::kErr)) == 0) {
      errno = EAGAIN;
      return -1;
    }
    return Done(io_.Read({static_cast<std::byte*>(data), size}));
  });
}

Result<size_t> HostInode::Write(IoSequence& src, bool append) {
  return WriteBy(src, [this](const void* data, size_t size) -> ssize_t {
    switch (kind_) {
      case Kind::kSocket:
        return ::send(fd_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
      case Kind::kRegular:
        return Whole(size,
                     [&](size_t done) { return io_.Write({static_cast<const std::byte*>(data) + done, size - done}); });
      case Kind::kPipe: {
        iovec iov{const_cast<void*>(data), size};
        ssize_t n = ::pwritev2(fd_, &iov, 1, -1, RWF_NOWAIT);
        if (n >= 0 || (errno != EOPNOTSUPP && errno != EINVAL)) return n;
        // A pipe that polls writable takes this much without blocking.
        size = std::min<size_t>(size, 4096);
        break;
      }
      default:
        break;
    }
    if ((Poll(waiter::kOut) & (waiter::kOut | waiter::kHup | waiter::kErr)) == 0) {
      errno = EAGAIN;
      return -1;
    }
    return Done(io_.Write({static_cast<const std::byte*>(data), size}));
  });
}

Result<size_t> HostInode::PRead(IoSequence& dst, uint64_t offset) {
  if (kind_ != Kind::kRegular) return Err(ESPIPE);
  return ReadBy(dst, [&](void* data, size_t size) {
    return Whole(size, [&](size_t done) {
      return io_.Read({static_cast<std::byte*>(data) + done, size - done}, static_cast<int64_t>(offset + done));
    });
  });
}

Result<size_t> HostInode::PWrite(IoSequence& src, uint64_t offset) {
  if (kind_ != Kind::kRegular) return Err(ESPIPE);
  return WriteBy(src, [&](const void* data, size_t size) {
    ssize_t n = Whole(size, [&](size_t done) {
      return io_.Write({static_cast<const std::byte*>(data) + done, size - done}, static_cast<int64_t>(offset + done));
    });
    if (n > 0) offset += static_cast<uint64_t>(n);
    return n;
  });
}

Result<uint64_t> HostInode::Seek(int64_t offset, int whence) {
  if (kind_ == Kind::kPipe || kind_ == Kind::kSocket || kind_ == Kind::kTerminal) return Err(ESPIPE);
  off_t at = ::lseek(fd_, offset, whence);
  if (at < 0) return ErrFromHost();
  return static_cast<uint64_t>(at);
}

Result<> HostInode::Sync() {
  if (kind_ != Kind::kRegular) return Err(EINVAL);
  return io_.Sync(false);
}

waiter::EventMask HostInode::Poll(waiter::EventMask mask) const {
  pollfd p{.fd = fd_, .events = static_cast<short>(mask & 0x7fff), .revents = 0};
  constexpr timespec kNow{};
  if (::ppoll(&p, 1, &kNow, nullptr) <= 0) return 0;
  return static_cast<waiter::EventMask>(static_cast<unsigned short>(p.revents));
}

Result<int> HostInode::Readable() const {
  int n = 0;
  if (::ioctl(fd_, FIONREAD, &n) != 0) return ErrFromHost();
  return n;
}

Result<> HostInode::TerminalIoctl(uint32_t command, void* argument) const {
  // Draining the output may take as long as the reader likes.
  return hostio::Ioctl(fd_, command, argument);
}

}  // namespace redoubt::host
