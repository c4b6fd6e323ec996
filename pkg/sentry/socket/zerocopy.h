// MSG_ZEROCOPY (the kernel's Documentation/networking/msg_zerocopy.rst). Bytes are copied here, so that a send is
// complete when it returns; that is what its sender is told, which otherwise waits before it uses the memory again.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_ZEROCOPY_H_
#define REDOUBT_PKG_SENTRY_SOCKET_ZEROCOPY_H_

#include <atomic>
#include <cstdint>

#include "pkg/sentry/socket/socket.h"

namespace redoubt::socket {

// Of one socket. Thread-safe.
class ZerocopyCompletions final {
 public:
  // A send with the flag, of a socket with SO_ZEROCOPY, is complete. They are numbered from 0 on. Then the socket has
  // waiter::kErr to tell.
  void Count();
  bool pending() const;
  // What recvmsg(2) with MSG_ERRQUEUE gives: all that are complete and not yet told, as one range. EAGAIN.
  Result<size_t> Take(int family, InMessage& message);

 private:
  static constexpr int kToldShift = 32;
  std::atomic<uint64_t> numbers_{0};  // the next send's; above it the first that is not told
};

}  // namespace redoubt::socket

#endif  // REDOUBT_PKG_SENTRY_SOCKET_ZEROCOPY_H_
