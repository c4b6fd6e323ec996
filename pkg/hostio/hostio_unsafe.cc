#include <sys/socket.h>
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

// Of files in memory and terminals, among others: the ring would ask a thread of the kernel, which is dearer than ours.
bool KnowsNoNowait(ssize_t n) { return n < 0 && (errno == EOPNOTSUPP || errno == EINVAL || errno == EINTR); }

Result<size_t> ToResult(ssize_t n) {
  if (n < 0) return ErrFromHost();
  return static_cast<size_t>(n);
}

// What the ring takes at once; the calls may do less than they are asked.
uint32_t Bounded(size_t size) { return static_cast<uint32_t>(size < (1u << 30) ? size : 1u << 30); }

}  // namespace

void Install(Ring* ring) { installed = ring; }

Descriptor::Descriptor(int fd) : fd_(fd), slot_(installed != nullptr ? installed->Register(fd) : -1) {}

Descriptor::~Descriptor() {
  if (slot_ >= 0) installed->Unregister(slot_);
}

Result<size_t> Descriptor::Read(std::span<std::byte> dst, int64_t offset) const {
  iovec iov{dst.data(), dst.size()};
  // preadv2(2): an offset of -1 is the file's position.
  auto call = [&](int flags) { return ::preadv2(fd_, &iov, 1, offset, flags); };
  ssize_t n = call(RWF_NOWAIT);
  if (n < 0 && errno == EAGAIN) {
    return Wait({.opcode = IORING_OP_READ,
                 .slot = slot_,
                 .data = dst.data(),
                 .length = Bounded(dst.size()),
                 .offset = static_cast<uint64_t>(offset)},
                [&] { return call(0); });
  }
  return KnowsNoNowait(n) ? Block([&] { return call(0); }) : ToResult(n);
}

Result<size_t> Descriptor::Write(std::span<const std::byte> src, int64_t offset) const {
  iovec iov{const_cast<std::byte*>(src.data()), src.size()};
  auto call = [&](int flags) { return ::pwritev2(fd_, &iov, 1, offset, flags); };
  ssize_t n = call(RWF_NOWAIT);
  if (n < 0 && errno == EAGAIN) {
    return Wait({.opcode = IORING_OP_WRITE,
                 .slot = slot_,
                 .data = iov.iov_base,
                 .length = Bounded(src.size()),
                 .offset = static_cast<uint64_t>(offset)},
                [&] { return call(0); });
  }
  return KnowsNoNowait(n) ? Block([&] { return call(0); }) : ToResult(n);
}

Result<> Descriptor::Sync(bool data_only) const {
  TRY(Wait({.opcode = IORING_OP_FSYNC, .slot = slot_, .flags = data_only ? IORING_FSYNC_DATASYNC : 0u},
           [&]() -> ssize_t { return data_only ? ::fdatasync(fd_) : ::fsync(fd_); }));
  return {};
}

Result<size_t> Receive(int socket, std::span<std::byte> dst) {
  return Block([&] { return ::recv(socket, dst.data(), dst.size(), 0); });
}

Result<size_t> Send(int socket, std::span<const std::byte> src) {
  // There is room, nearly always.
  ssize_t n = ::send(socket, src.data(), src.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n >= 0 || errno != EAGAIN) return ToResult(n);
  return Block([&] { return ::send(socket, src.data(), src.size(), MSG_NOSIGNAL); });
}

}  // namespace redoubt::hostio
