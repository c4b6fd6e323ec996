// Host calls that take their time, made by fibers. What the host can do at once is done by a plain call (RWF_NOWAIT,
// preadv2(2)), for as much as that is. Otherwise the fiber parks until the host has answered, through the ring (ring.h)
// if one is installed; if not, or when the ring is full, its OS thread blocks in a fiber::BlockingRegion. Outside
// fibers the calls are plain.
//
// Why not the ring for all: measured, a read that the host answers at once costs 1 us more through it, and a question
// to a process that answers in microseconds three system calls more than a thread that waits in recv(2).
#ifndef REDOUBT_PKG_HOSTIO_HOSTIO_H_
#define REDOUBT_PKG_HOSTIO_HOSTIO_H_

#include <sys/stat.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "pkg/errors/errors.h"

namespace redoubt::hostio {

class Ring;

// The process's ring, or null. Set once, before any Descriptor is made, by who composes the process.
void Install(Ring* ring);

// A host descriptor for such calls; owned by the caller, who keeps it open as long as this lives and calls are under
// way. Thread-safe. Errors are those of the man pages named; EINTR never.
class Descriptor final {
 public:
  explicit Descriptor(int fd);
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  static constexpr int64_t kFilePosition = -1;
  // read(2) and pread(2), write(2) and pwrite(2): at `offset` in bytes (regular files), or at the file's own position.
  // May do less than asked wherever RWF_NOWAIT may: what can be done at once.
  Result<size_t> Read(std::span<std::byte> dst, int64_t offset = kFilePosition) const;
  Result<size_t> Write(std::span<const std::byte> src, int64_t offset = kFilePosition) const;
  // fsync(2), fdatasync(2).
  Result<> Sync(bool data_only) const;

 private:
  using VectorCall = ssize_t(int, const iovec*, int, off_t, int);  // preadv2(2), pwritev2(2)
  Result<size_t> Transfer(VectorCall* call, uint8_t opcode, const iovec& iov, int64_t offset) const;

  const int fd_;
  int slot_ = -1;  // among the ring's registered files; -1: not registered
};

// fstat(2) itself: libc's asks by newfstatat(2), which could name a path and so is not among the Sentry's calls.
Result<> Stat(int fd, struct stat& st);
// ioctl(2) of a terminal, which may wait until its output is read: a thread waits. EINTR never.
Result<> Ioctl(int fd, uint32_t command, void* argument);
// read(2), send(2) with MSG_NOSIGNAL, for sockets whose other end answers soon: a thread waits.
Result<size_t> Receive(int socket, std::span<std::byte> dst);
Result<size_t> Send(int socket, std::span<const std::byte> src);

}  // namespace redoubt::hostio

#endif  // REDOUBT_PKG_HOSTIO_HOSTIO_H_
