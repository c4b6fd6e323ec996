// Private to hostinet: a socket of the host, and every call to the host that one needs.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_DESCRIPTOR_H_
#define REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_DESCRIPTOR_H_

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pkg/errors/errors.h"
#include "pkg/fd/unique_fd.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::hostinet {

// None of its calls blocks, whatever the guest's O_NONBLOCK says: EAGAIN instead. What is given to the host is of this
// process's own memory. Errors are the host's but for ENFILE.
class Descriptor final {
 public:
  // How many there may be at a time.
  static void SetMost(int64_t most);

  // socket(2). ENFILE: there are too many.
  static Result<Descriptor> Open(int family, int type, int protocol);
  Descriptor(Descriptor&&) noexcept = default;
  Descriptor& operator=(Descriptor&&) noexcept = default;
  ~Descriptor();

  int fd() const { return fd_.get(); }

  Result<> Bind(socket::Address address) const;
  Result<> Listen(int backlog) const;
  // EINPROGRESS, EALREADY.
  Result<> Connect(socket::Address address) const;
  Result<Descriptor> Accept() const;
  Result<> Shutdown(int how) const;
  Result<socket::AddressBytes> LocalName() const;
  Result<socket::AddressBytes> PeerName() const;

  // sendmsg(2) with MSG_NOSIGNAL.
  Result<size_t> Send(std::span<const std::byte> data, socket::Address to, std::span<const std::byte> control,
                      int flags) const;
  // recvmsg(2).
  struct Received {
    size_t bytes = 0;  // with MSG_TRUNC in the call's flags perhaps more than there was room for
    int flags = 0;
    socket::AddressBytes from;
    std::vector<std::byte> control;
  };
  Result<Received> Receive(std::span<std::byte> data, int flags) const;

  Result<> SetOption(int level, int name, std::span<const std::byte> value) const;
  // The number of bytes written to `value`.
  Result<size_t> GetOption(int level, int name, std::span<std::byte> value) const;
  // An ioctl(2) that answers with an int.
  Result<int> IntIoctl(uint32_t command) const;
  waiter::EventMask Poll(waiter::EventMask mask) const;

 private:
  explicit Descriptor(int fd) : fd_(fd) {}

  UniqueFd fd_;
};

}  // namespace redoubt::hostinet

#endif  // REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_DESCRIPTOR_H_
