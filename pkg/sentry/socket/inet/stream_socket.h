// Private to inet: SOCK_STREAM, tcp(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_STREAM_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_STREAM_SOCKET_H_

#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/sentry/socket/inet/inet_socket.h"

namespace redoubt::inetsock {

// Bytes are copied once each way: from guest memory into the netstack's chunks, and from those to guest memory. Unlike
// Linux's, close(2) does not wait for SO_LINGER's time (a time of 0 does reset), there is no SIGURG, and MSG_FASTOPEN
// is EOPNOTSUPP.
class StreamSocket final : public InetSocket {
 public:
  StreamSocket(Network& network, vfs::Path path, int family, int flags, RefPtr<netstack::tcp::Endpoint> endpoint);
  ~StreamSocket() override;

  Result<> Bind(const socket::Caller& caller, socket::Address address) override;
  Result<> Listen(const socket::Caller& caller, int backlog) override;
  Result<> Connect(const socket::Caller& caller, socket::Address address, fiber::Time deadline) override;
  Result<RefPtr<Socket>> Accept(const socket::Caller& caller, int flags, fiber::Time deadline) override;
  Result<size_t> Send(const socket::Caller& caller, socket::OutMessage& message, int flags,
                      fiber::Time deadline) override;
  Result<size_t> Receive(socket::InMessage& message, int flags, fiber::Time deadline) override;
  Result<> Shutdown(int how) override;
  Result<socket::AddressBytes> LocalName() override;
  Result<socket::AddressBytes> PeerName() override;
  // stream_options.cc
  Result<> SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) override;
  Result<std::vector<std::byte>> GetOption(const socket::Caller& caller, int level, int name) override;

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override { return SendOnce(src, 0); }
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  waiter::EventMask Readiness(waiter::EventMask mask) override { return endpoint_->Readiness() & mask; }
  void RegisterWaiter(waiter::Entry& entry) override { endpoint_->waiters().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { endpoint_->waiters().Unregister(entry); }

 protected:
  int TakeError() override { return endpoint_->TakeError(); }
  bool IsListening() const override { return endpoint_->state() == netstack::tcp::State::kListen; }
  Result<size_t> Readable() override;
  Result<size_t> Unsent() override;

 private:
  // Bytes that one attempt copies in at most: a limit on what a call holds beside the send buffer.
  static constexpr size_t kPiece = 256 << 10;

  Result<size_t> SendOnce(IoSequence& data, int flags);
  Result<size_t> ReceiveOnce(IoSequence& data, int flags);
  Result<size_t> ReceiveUrgent(socket::InMessage& message, int flags);
  Result<> SetSocketOption(const socket::Caller& caller, int name, std::span<const std::byte> value);
  Result<> SetTcpOption(int name, std::span<const std::byte> value);
  Result<std::vector<std::byte>> GetTcpOption(int name);
  // Read, change, write; one caller at a time.
  template <typename Change>
  void ChangeSettings(Change&& change);
  template <typename Change>
  void ChangeOptions(Change&& change);

  const RefPtr<netstack::tcp::Endpoint> endpoint_;
  fiber::Mutex options_mu_;
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_STREAM_SOCKET_H_
