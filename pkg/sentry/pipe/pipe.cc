#include "pkg/sentry/pipe/pipe.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "pkg/sentry/limits/system.h"
#include "pkg/sentry/vfs/anon_inode.h"
#include "pkg/sentry/vfs/special_nodes.h"
#include "pkg/sentry/wait/wait.h"

namespace redoubt::pipe {

namespace {

limits::UserCount& PagesOfUsers() {
  static auto* const count = new limits::UserCount();
  return *count;
}

// Whoever calls; the kernel itself is root.
RefPtr<const auth::Credentials> Caller() {
  const auth::Credentials* creds = vfs::CurrentCredentials();
  return creds != nullptr ? RefPtr<const auth::Credentials>(creds) : auth::Credentials::Root();
}

bool IsPrivileged(const auth::Credentials& creds) {
  return creds.HasCapability(CAP_SYS_RESOURCE) || creds.HasCapability(CAP_SYS_ADMIN);
}

// What `pages` says, or no limit.
uint64_t LimitFor(const std::atomic<int64_t>& pages, bool privileged) {
  const int64_t limit = pages.load(std::memory_order_relaxed);
  return limit <= 0 || privileged ? UINT64_MAX : static_cast<uint64_t>(limit);
}

}  // namespace

Result<RefPtr<Pipe>> Pipe::Make(const auth::Credentials& creds) {
  const limits::System& system = limits::System::Get();
  const bool privileged = IsPrivileged(creds);
  const uint64_t soft = LimitFor(system.pipe_user_pages_soft, privileged);
  const uint64_t hard = LimitFor(system.pipe_user_pages_hard, privileged);
  for (size_t size : {kDefaultSize, kSmallSize}) {
    const uint64_t limit = size == kDefaultSize ? std::min(soft, hard) : hard;
    if (PagesOfUsers().Charge(creds.ruid, size / kPageSize, limit)) return RefPtr<Pipe>(new Pipe(creds.ruid, size));
  }
  return Err(ENFILE);
}

Pipe::~Pipe() {
  sync::MutexLock lock(mu_);
  PagesOfUsers().Uncharge(owner_, size_ / kPageSize);
}

void Pipe::GrowLocked(size_t wanted) {
  if (wanted <= capacity_) return;
  size_t capacity = std::max<size_t>(std::bit_ceil(wanted), kPageSize);
  auto ring = std::make_unique_for_overwrite<std::byte[]>(capacity);
  if (used_ > 0) {
    size_t first = std::min(used_, capacity_ - head_);
    std::memcpy(ring.get(), ring_.get() + head_, first);
    std::memcpy(ring.get() + first, ring_.get(), used_ - first);
  }
  ring_ = std::move(ring);
  capacity_ = capacity;
  head_ = 0;
}

Result<size_t> Pipe::Read(IoSequence& dst) {
  if (dst.empty()) return 0;
  fiber::MutexLock io_lock(io_mu_);
  size_t total = 0;
  Result<size_t> outcome = 0;
  while (!dst.empty()) {
    // Only this reader consumes (io_mu_), so the bytes stay while they are copied without the short lock.
    std::byte* from = nullptr;
    size_t n = 0;
    {
      sync::MutexLock lock(mu_);
      if (used_ == 0) {
        if (total == 0 && writers_ > 0) outcome = Err(EAGAIN);
        break;
      }
      from = ring_.get() + head_;
      n = std::min(used_, capacity_ - head_);
    }
    Result<size_t> copied = dst.CopyOut(std::span(from, n));
    if (!copied) {
      if (total == 0) outcome = copied;
      break;
    }
    total += *copied;
    sync::MutexLock lock(mu_);
    head_ = (head_ + *copied) % capacity_;
    used_ -= *copied;
    if (used_ == 0) head_ = 0;
    if (*copied < n) break;
  }
  if (total > 0) {
    queue_.Notify(waiter::kOut | waiter::kWrNorm);
    return total;
  }
  return outcome;
}

Result<size_t> Pipe::Write(IoSequence& src) {
  fiber::MutexLock io_lock(io_mu_);
  size_t total = 0;
  uint64_t wanted = src.remaining();
  Result<size_t> outcome = 0;
  {
    sync::MutexLock lock(mu_);
    if (readers_ == 0) return Err(EPIPE);
    size_t room = size_ - used_;
    if (wanted == 0) return 0;
    // pipe(7): PIPE_BUF bytes or fewer are written whole or not at all.
    if (room == 0 || (wanted <= kAtomicWrite && room < wanted)) return Err(EAGAIN);
    GrowLocked(used_ + std::min<uint64_t>(room, wanted));
  }
  while (!src.empty()) {
    std::byte* to = nullptr;
    size_t n = 0;
    {
      sync::MutexLock lock(mu_);
      size_t room = std::min(size_ > used_ ? size_ - used_ : 0, capacity_ - used_);
      if (room == 0) break;
      size_t tail = (head_ + used_) % capacity_;
      to = ring_.get() + tail;
      n = std::min({room, capacity_ - tail, static_cast<size_t>(src.remaining())});
    }
    Result<size_t> copied = src.CopyIn(std::span(to, n));
    if (!copied) {
      if (total == 0) outcome = copied;
      break;
    }
    total += *copied;
    sync::MutexLock lock(mu_);
    used_ += *copied;
    if (*copied < n) break;
  }
  if (total > 0) {
    queue_.Notify(waiter::kIn | waiter::kRdNorm);
    return total;
  }
  return outcome;
}

waiter::EventMask Pipe::Readiness(bool reader, bool writer) const {
  sync::MutexLock lock(mu_);
  waiter::EventMask ready = 0;
  if (reader) {
    if (used_ > 0) ready |= waiter::kIn | waiter::kRdNorm;
    if (writers_ == 0 && writer_opens_ > 0) ready |= waiter::kHup;
  }
  if (writer) {
    if (size_ - std::min(size_, used_) >= kAtomicWrite) ready |= waiter::kOut | waiter::kWrNorm;
    if (readers_ == 0) ready |= waiter::kErr;
  }
  return ready;
}

size_t Pipe::Buffered() const {
  sync::MutexLock lock(mu_);
  return used_;
}

size_t Pipe::size() const {
  sync::MutexLock lock(mu_);
  return size_;
}

Result<size_t> Pipe::Resize(size_t size, const auth::Credentials& creds) {
  if (size > kMaxSize) return Err(EPERM);
  size = std::max<size_t>(std::bit_ceil(std::max<size_t>(size, 1)), kPageSize);
  fiber::MutexLock io_lock(io_mu_);
  sync::MutexLock lock(mu_);
  if (size > size_) {
    const limits::System& system = limits::System::Get();
    const bool privileged = IsPrivileged(creds);
    const auto largest = static_cast<uint64_t>(system.pipe_max_size.load(std::memory_order_relaxed));
    if (size > largest && !creds.HasCapability(CAP_SYS_RESOURCE)) return Err(EPERM);
    const uint64_t limit =
        std::min(LimitFor(system.pipe_user_pages_soft, privileged), LimitFor(system.pipe_user_pages_hard, privileged));
    if (!PagesOfUsers().Charge(owner_, (size - size_) / kPageSize, limit)) return Err(EPERM);
  } else {
    if (size < used_) return Err(EBUSY);
    PagesOfUsers().Uncharge(owner_, (size_ - size) / kPageSize);
  }
  size_ = size;
  return size;
}

void Pipe::AddReader() {
  {
    sync::MutexLock lock(mu_);
    readers_++;
    reader_opens_++;
  }
  queue_.Notify(waiter::kOut);
}

void Pipe::AddWriter() {
  {
    sync::MutexLock lock(mu_);
    writers_++;
    writer_opens_++;
  }
  queue_.Notify(waiter::kIn);
}

void Pipe::DropReader() {
  {
    sync::MutexLock lock(mu_);
    if (--readers_ > 0) return;
  }
  queue_.Notify(waiter::kErr | waiter::kOut);
}

void Pipe::DropWriter() {
  {
    sync::MutexLock lock(mu_);
    if (--writers_ > 0) return;
  }
  queue_.Notify(waiter::kHup | waiter::kIn);
}

bool Pipe::HasReaders() const {
  sync::MutexLock lock(mu_);
  return readers_ > 0;
}

bool Pipe::HasWriters() const {
  sync::MutexLock lock(mu_);
  return writers_ > 0;
}

uint64_t Pipe::reader_opens() const {
  sync::MutexLock lock(mu_);
  return reader_opens_;
}

uint64_t Pipe::writer_opens() const {
  sync::MutexLock lock(mu_);
  return writer_opens_;
}

PipeEnd::PipeEnd(vfs::Path path, int flags, RefPtr<Pipe> pipe)
    : FileDescription(std::move(path), flags), pipe_(std::move(pipe)) {
  if (readable()) pipe_->AddReader();
  if (writable()) pipe_->AddWriter();
}

PipeEnd::~PipeEnd() {
  if (readable()) pipe_->DropReader();
  if (writable()) pipe_->DropWriter();
}

Result<size_t> PipeEnd::Read(IoSequence& dst, vfs::IoFlags) { return pipe_->Read(dst); }
Result<size_t> PipeEnd::Write(IoSequence& src, vfs::IoFlags) { return pipe_->Write(src); }

Result<uint64_t> PipeEnd::Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) {
  if (command != FIONREAD) return Err(ENOTTY);
  TRY(io.CopyOutObject<int32_t>(arg, static_cast<int32_t>(pipe_->Buffered())));
  return 0;
}

Result<uint64_t> PipeEnd::Fcntl(int command, uint64_t arg) {
  switch (command) {
    case F_GETPIPE_SZ:
      return pipe_->size();
    case F_SETPIPE_SZ:
      if (arg > INT32_MAX) return Err(EINVAL);
      return TRY(pipe_->Resize(arg, *Caller()));
    default:
      return Err(EINVAL);
  }
}

waiter::EventMask PipeEnd::Readiness(waiter::EventMask mask) { return pipe_->Readiness(readable(), writable()) & mask; }

namespace {

// An unnamed pipe's inode: /proc/PID/fd/N of it can be opened again.
class PipeInode final : public vfs::Inode {
 public:
  PipeInode(RefPtr<Pipe> pipe, uint64_t ino, uint32_t uid, uint32_t gid)
      : Inode(vfs::AnonymousFilesystem()),
        pipe_(std::move(pipe)),
        created_(clock::Realtime()),
        ino_(ino),
        uid_(uid),
        gid_(gid) {}
  uint32_t type() const override { return S_IFIFO; }
  Result<vfs::Attributes> GetAttributes() override {
    vfs::Attributes a;
    a.mode = S_IFIFO | 0600;
    a.uid = uid_;
    a.gid = gid_;
    a.ino = ino_;
    a.dev = filesystem().dev();
    a.atime = a.mtime = a.ctime = created_;
    return a;
  }
  Result<RefPtr<vfs::FileDescription>> Open(const vfs::Path& path, int flags) override {
    return RefPtr<vfs::FileDescription>(MakeRef<PipeEnd>(path, flags, pipe_));
  }

 private:
  const RefPtr<Pipe> pipe_;
  const clock::Nanoseconds created_;
  const uint64_t ino_;
  const uint32_t uid_, gid_;
};

}  // namespace

Result<Ends> MakePipe(int flags, const auth::Credentials& creds) {
  RefPtr<Pipe> pipe = TRY(Pipe::Make(creds));
  uint64_t ino = vfs::NextAnonymousIno();
  vfs::Path path = vfs::MakeAnonymousPath(MakeRef<PipeInode>(pipe, ino, creds.fsuid, creds.fsgid),
                                          "pipe:[" + std::to_string(ino) + "]");
  return Ends{MakeRef<PipeEnd>(path, O_RDONLY | flags, pipe), MakeRef<PipeEnd>(path, O_WRONLY | flags, pipe)};
}

Result<RefPtr<vfs::FileDescription>> OpenFifo(vfs::Inode& inode, const vfs::Path& path, int flags) {
  static sync::Mutex slots_mu(sync::Rank::kSocket);
  RefPtr<Pipe> pipe;
  {
    sync::MutexLock lock(slots_mu);
    RefPtr<RefCounted>* slot = inode.fifo_slot();
    if (slot == nullptr) return Err(ENXIO);
    if (!*slot) *slot = TRY(Pipe::Make(*Caller()));
    pipe = RefCast<Pipe>(*slot);
  }
  const int mode = flags & O_ACCMODE;
  const bool nonblocking = (flags & O_NONBLOCK) != 0;
  if (mode == O_WRONLY && nonblocking && !pipe->HasReaders()) return Err(ENXIO);
  // Opened first, so that the other side finds this one, then waited for.
  uint64_t reader_opens = pipe->reader_opens();
  uint64_t writer_opens = pipe->writer_opens();
  RefPtr<vfs::FileDescription> end = MakeRef<PipeEnd>(path, flags, pipe);
  if (mode == O_RDWR || nonblocking) return end;
  TRY(wait::Retry(*end, waiter::kIn | waiter::kOut, fiber::kForever, [&]() -> Result<> {
    bool met = mode == O_RDONLY ? pipe->HasWriters() || pipe->writer_opens() != writer_opens
                                : pipe->HasReaders() || pipe->reader_opens() != reader_opens;
    if (!met) return Err(EAGAIN);
    return {};
  }));
  return end;
}

}  // namespace redoubt::pipe
