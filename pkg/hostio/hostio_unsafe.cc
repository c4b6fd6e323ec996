#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "pkg/fiber/fiber.h"
#include "pkg/hostio/hostio.h"
#include "pkg/hostio/ring.h"

namespace redoubt::hostio {
namespace {

Ring* installed = nullptr;

// In a region, outside fibers without one; `call` is as of the system call.
template <typename Call>
Result<size_t> Block(Call&& call) {
  ssize_t n;
  int error;
  do {
    if (fiber::Current() != nullptr) {
      fiber::BlockingRegion region;
      n = call();
      error = errno;
    } else {
      n = call();
      error = errno;
    }
  } while (n < 0 && error == EINTR);
  if (n < 0) return Err(error);
  return static_cast<size_t>(n);
}

// Through the ring if that can be, otherwise by `call`.
template <typename Call>
Result<size_t> Wait(const Ring::Request& request, Call&& call) {
  if (fiber::Current() != nullptr && request.slot >= 0) {
    int result = 0;
    while (installed->Do(request, &result)) {
      // ECANCELED: the thread that asked has ended.
      if (result == -EINTR || result == -ECANCELED) continue;
      if (result < 0) return Err(-result);
      return static_cast<size_t>(result);
    }
  }
  return Block(call);
}

// What the ring takes at once; the calls may do less than they are asked.
uint32_t Bounded(size_t size) { return static_cast<uint32_t>(size < (1u << 30) ? size : 1u << 30); }

}  // namespace

void Install(Ring* ring) { installed = ring; }

Descriptor::Descriptor(int fd) : fd_(fd), slot_(installed != nullptr ? installed->Register(fd) : -1) {}

Descriptor::~Descriptor() {
  if (slot_ >= 0) installed->Unregister(slot_);
}

Result<size_t> Descriptor::Transfer(VectorCall* call, uint8_t opcode, const iovec& iov, int64_t offset) const {
  // preadv2(2): an offset of -1 is the file's position.
  ssize_t n = call(fd_, &iov, 1, offset, RWF_NOWAIT);
  if (n >= 0) return static_cast<size_t>(n);
  auto wait = [&] { return call(fd_, &iov, 1, offset, 0); };
  switch (errno) {
    case EAGAIN:
      return Wait({.opcode = opcode,
                   .slot = slot_,
                   .data = iov.iov_base,
                   .length = Bounded(iov.iov_len),
                   .offset = static_cast<uint64_t>(offset)},
                  wait);
    case EOPNOTSUPP:
    case EINVAL:
      // Files in memory and terminals, among others, know no RWF_NOWAIT. The ring would ask a thread of the kernel,
      // which is dearer than ours.
    case EINTR:
      return Block(wait);
    default:
      return ErrFromHost();
  }
}

Result<size_t> Descriptor::Read(std::span<std::byte> dst, int64_t offset) const {
  return Transfer(::preadv2, IORING_OP_READ, {dst.data(), dst.size()}, offset);
}

Result<size_t> Descriptor::Write(std::span<const std::byte> src, int64_t offset) const {
  return Transfer(::pwritev2, IORING_OP_WRITE, {const_cast<std::byte*>(src.data()), src.size()}, offset);
}

Result<> Descriptor::Sync(bool data_only) const {
  TRY(Wait({.opcode = IORING_OP_FSYNC, .slot = slot_, .flags = data_only ? IORING_FSYNC_DATASYNC : 0u},
           // fdatasync(2) would be one call more for filters to allow.
           [&]() -> ssize_t { return ::fsync(fd_); }));
  return {};
}

Result<> Stat(int fd, struct stat& st) {
  // SAFETY: x86-64's struct stat is the kernel's.
  if (::syscall(SYS_fstat, fd, &st) != 0) return ErrFromHost();
  return {};
}

Result<> Ioctl(int fd, uint32_t command, void* argument) {
  TRY(Block([&]() -> ssize_t { return ::ioctl(fd, command, argument); }));
  return {};
}

Result<size_t> Receive(int socket, std::span<std::byte> dst) {
  return Block([&] { return ::read(socket, dst.data(), dst.size()); });
}

Result<size_t> Send(int socket, std::span<const std::byte> src) {
  // There is room, nearly always.
  // sendmsg(2) for one part: a call that is made anyway, so that the filter need not have another.
  iovec part{const_cast<std::byte*>(src.data()), src.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ssize_t n = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n >= 0) return static_cast<size_t>(n);
  if (errno != EAGAIN) return ErrFromHost();
  return Block([&] { return ::sendmsg(socket, &message, MSG_NOSIGNAL); });
}

}  // namespace redoubt::hostio
