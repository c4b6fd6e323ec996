// An open file: Linux's struct file and file_operations.
#ifndef REDOUBT_PKG_SENTRY_VFS_FILE_DESCRIPTION_H_
#define REDOUBT_PKG_SENTRY_VFS_FILE_DESCRIPTION_H_

#include <atomic>
#include <cstdint>
#include <string_view>

#include "pkg/errors/errors.h"
#include "pkg/fiber/fiber.h"
#include "pkg/refs/refs.h"
#include "pkg/sentry/memmap/memmap.h"
#include "pkg/sentry/memmap/mmap_options.h"
#include "pkg/sentry/usermem/usermem.h"
#include "pkg/sentry/vfs/inode.h"
#include "pkg/sentry/vfs/path.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::vfs {

// Takes directory entries until it is full.
class DirentSink {
 public:
  virtual ~DirentSink() = default;
  // `next_offset` is what a later Getdents continues from (d_off). False: no room, stop before this one. `type` is
  // DT_*.
  virtual bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t next_offset) = 0;
};

// RWF_* of preadv2(2); kNone otherwise.
using IoFlags = int;

// Operations never block: what would block returns EAGAIN, and the syscall layer waits on the description's events and
// tries again (wait::Retry), unless the description is O_NONBLOCK. (Waiting for the gofer or a lock is not "blocking"
// in this sense.)
class FileDescription : public memmap::MappingIdentity {
 public:
  // `path` may be null for descriptions with no place in the tree that override everything which needs one; anonymous
  // ones (pipes, sockets, eventfd) get a path on an internal mount (anon_inode.h). `flags`: open(2)'s access mode and
  // status flags.
  FileDescription(Path path, int flags);
  ~FileDescription() override;

  // How many there are of all.
  static int64_t Count();

  const Path& path() const { return path_; }
  Inode& inode() const { return path_.inode(); }
  bool readable() const { return readable_; }
  bool writable() const { return writable_; }
  // O_ACCMODE and the status flags (O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME, O_ASYNC, O_SYNC, O_PATH...).
  int flags() const { return flags_.load(std::memory_order_relaxed); }
  bool nonblocking() const;
  // fcntl(F_SETFL): only O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME, O_NONBLOCK change. Overridable to forward to a host
  // descriptor.
  virtual Result<> SetStatusFlags(int flags);

  // At the description's offset, which moves (for streams there is none). Checked by the caller: readable(),
  // writable(). Defaults: under the offset's fiber lock, PRead or PWrite (at the end with O_APPEND).
  virtual Result<size_t> Read(IoSequence& dst, IoFlags flags);
  virtual Result<size_t> Write(IoSequence& src, IoFlags flags);
  // At `offset`, which is not negative. Streams: ESPIPE (the default).
  virtual Result<size_t> PRead(IoSequence& dst, uint64_t offset, IoFlags flags);
  virtual Result<size_t> PWrite(IoSequence& src, uint64_t offset, IoFlags flags);
  // Appends atomically and returns the number of bytes and the offset after them. Default: PWrite at the size.
  struct Appended {
    size_t bytes;
    uint64_t end;
  };
  virtual Result<Appended> Append(IoSequence& src, IoFlags flags);
  // lseek(2); default for files with a size: SEEK_SET, CUR, END, DATA, HOLE on the offset.
  virtual Result<uint64_t> Seek(int64_t offset, int whence);
  uint64_t offset() const { return offset_.load(std::memory_order_relaxed); }

  // From the description's offset; directories only (ENOTDIR).
  virtual Result<> Getdents(DirentSink& sink);

  virtual Result<Attributes> GetAttributes() { return inode().GetAttributes(); }
  virtual Result<> SetAttributes(const AttributeChange& change) { return inode().SetAttributes(change); }
  virtual Result<> Sync(bool data_only) { return {}; }
  virtual Result<> Allocate(int mode, uint64_t offset, uint64_t length) { return Err(EOPNOTSUPP); }
  // `io` is the caller's memory; arg is a number or an address in it. ENOTTY by default.
  virtual Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) { return Err(ENOTTY); }
  // fcntl(2) commands of particular kinds: F_GETPIPE_SZ, F_SETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS.
  virtual Result<uint64_t> Fcntl(int command, uint64_t arg) { return Err(EINVAL); }
  // Fills options.mappable, identity, max_access as wanted. ENODEV by default.
  virtual Result<> ConfigureMMap(mm::MMapOptions& options) { return Err(ENODEV); }

  // The lines of /proc/PID/fdinfo (proc(5)) that only this kind of file has.
  virtual std::string FdInfo() { return {}; }

  // Readiness for poll and epoll: those of `mask`'s events that hold now. Default: always readable and writable (as
  // regular files are), and no queue.
  virtual waiter::EventMask Readiness(waiter::EventMask mask);
  virtual void RegisterWaiter(waiter::Entry& entry) {}
  virtual void UnregisterWaiter(waiter::Entry& entry) {}
  // Until when read(2) and write(2) wait where they block: SO_RCVTIMEO and SO_SNDTIMEO. A deadline that passes is
  // EAGAIN.
  virtual fiber::Time ReadDeadline() const { return fiber::kForever; }
  virtual fiber::Time WriteDeadline() const { return fiber::kForever; }
  // Whether EPIPE comes with the signal: not of sockets that carry messages.
  virtual bool RaisesSigpipe() const { return true; }
  // False where epoll_ctl answers EPERM (regular files, directories).
  virtual bool SupportsEpoll() const { return false; }

  // An epoll watches this: before it dies, `hook` (of the epoll library) makes them forget it.
  void MarkWatched(void (*hook)(FileDescription&)) { watched_hook_.store(hook, std::memory_order_release); }

  // A descriptor that refers to this was closed (Linux's f_op->flush); the description may live on in others.
  virtual Result<> OnClose() { return {}; }

  // memmap::MappingIdentity
  std::string MappedName() const override;
  uint64_t MappedDevice() const override;
  uint64_t MappedInode() const override;
  Result<> MappedSync(uint64_t offset, uint64_t length) override { return Sync(true); }

 protected:
  void OnZeroRefs() override {
    // Not in the destructor: unregistering needs the whole object.
    if (auto* hook = watched_hook_.load(std::memory_order_acquire); hook != nullptr) hook(*this);
    RefCounted::OnZeroRefs();
  }
  void set_offset(uint64_t offset) { offset_.store(offset, std::memory_order_relaxed); }
  fiber::Mutex& offset_lock() { return offset_mu_; }

 private:
  const Path path_;
  const bool readable_;
  const bool writable_;
  std::atomic<int> flags_;
  const bool counted_writer_;  // of the mount
  std::atomic<void (*)(FileDescription&)> watched_hook_{nullptr};
  fiber::Mutex offset_mu_;  // f_pos_lock: one read, write or seek at a time moves the offset
  std::atomic<uint64_t> offset_{0};
};

}  // namespace redoubt::vfs

#endif  // REDOUBT_PKG_SENTRY_VFS_FILE_DESCRIPTION_H_
