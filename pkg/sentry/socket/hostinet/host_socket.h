// Private to hostinet: a socket of the guest's that is one of the host's.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_HOST_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_HOST_SOCKET_H_

#include <atomic>
#include <optional>
#include <vector>

#include "pkg/fiber/fiber.h"
#include "pkg/sentry/socket/hostinet/descriptor.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/zerocopy.h"
#include "pkg/waiter/waiter.h"

namespace redoubt::hostinet {

// The host's descriptor never blocks; who waits parks until the poller (fsimpl/host/poller.h) tells of an event. Bytes
// are copied once each way, through a Piece. Unlike Linux's, close(2) does not wait for SO_LINGER's time (a time of 0
// does reset), and there is no SIGURG.
//
// What goes to the host is on a list: addresses of its own families, flags of sendmsg(2) and recvmsg(2) by mask,
// options and ancillary data by options.h.
class HostSocket final : public socket::Socket {
 public:
  // ENOBUFS if the host does not let it be watched.
  static Result<RefPtr<HostSocket>> Make(const socket::Caller& caller, Descriptor descriptor, int family, int type,
                                         int protocol, int flags);
  ~HostSocket() override;

  Result<> Bind(const socket::Caller& caller, socket::Address address) override;
  Result<> Listen(const socket::Caller& caller, int backlog) override;
  Result<> Connect(const socket::Caller& caller, socket::Address address, fiber::Time deadline) override;
  Result<RefPtr<Socket>> Accept(const socket::Caller& caller, int flags, fiber::Time deadline) override;
  Result<size_t> Send(const socket::Caller& caller, socket::OutMessage& message, int flags,
                      fiber::Time deadline) override;
  Result<size_t> Receive(socket::InMessage& message, int flags, fiber::Time deadline) override;
  Result<> Shutdown(int how) override;
  Result<socket::AddressBytes> LocalName() override { return descriptor_.LocalName(); }
  Result<socket::AddressBytes> PeerName() override { return descriptor_.PeerName(); }
  Result<> SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) override;
  Result<std::vector<std::byte>> GetOption(const socket::Caller& caller, int level, int name) override;

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  // For /proc/net and sock_diag(7); none: not bound to anything.
  std::optional<inetsock::ListedSocket> Listed();

  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override;
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { queue_.Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { queue_.Unregister(entry); }

 private:
  HostSocket(vfs::Path path, Descriptor descriptor, int family, int type, int protocol, int flags);

  bool is_stream() const { return type() == SOCK_STREAM; }
  // EINVAL for what is too short, EAFNOSUPPORT.
  Result<> CheckAddress(socket::Address address) const;
  // A piece of `data`, which what was sent is taken off.
  Result<size_t> SendOnce(IoSequence& data, socket::Address to, std::span<const std::byte> control, int flags);
  // `waits`: the caller goes on waiting after EAGAIN.
  Result<size_t> ReceiveOnce(socket::InMessage& message, int flags, bool waits);
  Result<size_t> TakeUnread(socket::InMessage& message, int flags) REQUIRES(receive_mu_);

  const Descriptor descriptor_;
  waiter::Queue queue_;
  uint64_t poll_id_ = 0;
  // The host had no room for the last piece: it is asked before another is copied.
  std::atomic<bool> full_{false};
  std::atomic<int> low_water_{1};  // SO_RCVLOWAT
  socket::ZerocopyCompletions zerocopy_;
  // One piece at a time comes out of a stream, so that what could not be delivered goes back to its place: bytes that
  // the host has given and the guest's memory has not taken. At most a piece.
  fiber::Mutex receive_mu_;
  std::vector<std::byte> unread_ GUARDED_BY(receive_mu_);
  std::atomic<size_t> unread_size_{0};  // its size, for who does not hold it
};

}  // namespace redoubt::hostinet

#endif  // REDOUBT_PKG_SENTRY_SOCKET_HOSTINET_HOST_SOCKET_H_
