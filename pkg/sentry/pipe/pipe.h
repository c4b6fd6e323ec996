// Pipes and FIFOs: pipe(7), fifo(7).
#ifndef REDOUBT_PKG_SENTRY_PIPE_PIPE_H_
#define REDOUBT_PKG_SENTRY_PIPE_PIPE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "pkg/errors/errors.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/auth/credentials.h"
#include "pkg/sentry/vfs/file_description.h"
#include "pkg/sync/mutex.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::pipe {

// The buffer between writers and readers: a ring of bytes, allocated as far as it is used. Thread-safe; guest memory is
// copied with the fiber lock held, which serializes reads and writes of one pipe, as Linux's pipe mutex does.
//
// Its size is charged to who made it, in pages (pipe(7), pipe-user-pages-soft and -hard): past the soft limit pipes of
// the unprivileged are as small as they can be.
class Pipe final : public RefCounted {
 public:
  static constexpr size_t kAtomicWrite = 4096;  // PIPE_BUF
  static constexpr size_t kDefaultSize = 65536;
  static constexpr size_t kMaxSize = 1 << 20;  // for anybody: each is one piece of memory
  // Past the soft limit.
  static constexpr size_t kSmallSize = 2 * kPageSize;

  // ENFILE past the hard limit.
  static Result<RefPtr<Pipe>> Make(const auth::Credentials& creds);
  ~Pipe() override;

  // EAGAIN if empty with writers; 0 at end of file.
  Result<size_t> Read(IoSequence& dst);
  // EPIPE without readers; EAGAIN if there is no room (for PIPE_BUF bytes or fewer: not for all of them).
  Result<size_t> Write(IoSequence& src);

  waiter::EventMask Readiness(bool reader, bool writer) const;
  waiter::Queue& queue() { return queue_; }
  size_t Buffered() const;
  size_t size() const;
  // F_SETPIPE_SZ: EBUSY if the content does not fit; EPERM for more than pipe-max-size, or past the limits of pages, of
  // the unprivileged.
  Result<size_t> Resize(size_t size, const auth::Credentials& creds);

  void AddReader();
  void DropReader();
  void AddWriter();
  void DropWriter();
  bool HasReaders() const;
  bool HasWriters() const;
  // How often each side has been opened: fifo(7)'s open waits for the other side to come, even if it goes at once.
  uint64_t reader_opens() const;
  uint64_t writer_opens() const;

 private:
  Pipe(uint32_t owner, size_t size) : owner_(owner), size_(size) {}

  const uint32_t owner_;
  mutable fiber::Mutex io_mu_;  // one read or write at a time; taken before mu_
  mutable sync::Mutex mu_{sync::Rank::kPipe};
  std::unique_ptr<std::byte[]> ring_ GUARDED_BY(mu_);
  size_t capacity_ GUARDED_BY(mu_) = 0;  // bytes allocated
  size_t size_ GUARDED_BY(mu_);
  size_t head_ GUARDED_BY(mu_) = 0;  // of the first byte
  size_t used_ GUARDED_BY(mu_) = 0;
  int readers_ GUARDED_BY(mu_) = 0;
  int writers_ GUARDED_BY(mu_) = 0;
  uint64_t reader_opens_ GUARDED_BY(mu_) = 0;
  uint64_t writer_opens_ GUARDED_BY(mu_) = 0;
  waiter::Queue queue_;

  void GrowLocked(size_t wanted) REQUIRES(mu_);
};

// An end of a pipe (or both: a FIFO opened O_RDWR).
class PipeEnd final : public vfs::FileDescription {
 public:
  PipeEnd(vfs::Path path, int flags, RefPtr<Pipe> pipe);
  ~PipeEnd() override;

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override;
  Result<uint64_t> Seek(int64_t, int) override { return Err(ESPIPE); }
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  Result<uint64_t> Fcntl(int command, uint64_t arg) override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { pipe_->queue().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { pipe_->queue().Unregister(entry); }
  bool SupportsEpoll() const override { return true; }

 private:
  const RefPtr<Pipe> pipe_;
};

// pipe2(2): read end and write end. `flags`: O_NONBLOCK, O_DIRECT. ENFILE: the user has too many.
using Ends = std::pair<RefPtr<vfs::FileDescription>, RefPtr<vfs::FileDescription>>;
Result<Ends> MakePipe(int flags, const auth::Credentials& creds);

// open(2) of a FIFO node, for vfs::SpecialNodeHooks: waits interruptibly for the other side; ENXIO for O_WRONLY |
// O_NONBLOCK without a reader.
Result<RefPtr<vfs::FileDescription>> OpenFifo(vfs::Inode& inode, const vfs::Path& path, int flags);

}  // namespace redoubt::pipe

#endif  // REDOUBT_PKG_SENTRY_PIPE_PIPE_H_
