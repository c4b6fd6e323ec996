// Private to inet: SOCK_STREAM, tcp(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_STREAM_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_STREAM_SOCKET_H_

#include <atomic>
#include <optional>

#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/sentry/socket/inet/inet_socket.h"
#include "pkg/sync/mutex.h"

namespace redoubt::inetsock {

// Bytes are copied once each way: from guest memory into the netstack's chunks, and from those to guest memory.
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
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override;
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  // SO_LINGER: the last descriptor's close waits until the other side has everything, or the time is over.
  Result<> OnClose() override;
  uint32_t UrgentMarks() const override { return endpoint_->urgent_marks().load(std::memory_order_relaxed); }
  const void* EndpointKey() const override { return endpoint_.get(); }
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { endpoint_->waiters().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { endpoint_->waiters().Unregister(entry); }

 protected:
  int TakeError() override { return endpoint_->TakeError(); }
  Result<> AttachFilter(std::shared_ptr<const bpf::Program> program) override {
    endpoint_->SetFilter(std::move(program));
    return {};
  }
  bool HasPeekOffset() const override { return true; }
  bool IsListening() const override { return endpoint_->state() == netstack::tcp::State::kListen; }
  Result<size_t> Readable() override;
  Result<size_t> Unsent() override;

 private:
  // Bytes that one attempt copies in at most: a limit on what a call holds beside the send buffer.
  static constexpr size_t kPiece = 256 << 10;
  // Bytes that leave with a SYN at most: they fit into its segment on any link that IPv6 can use.
  static constexpr size_t kOpening = 1280 - 40 - 60;

  Result<> FinishConnect(const netstack::SocketAddress& peer, Result<> first, fiber::Time deadline);
  // What leaves with the SYN (RFC 7413): how many bytes; EINPROGRESS if none can and the call does not wait.
  Result<size_t> SendOpening(const netstack::SocketAddress& peer, IoSequence& data, fiber::Time deadline);
  std::optional<netstack::SocketAddress> TakePutOff();
  Result<size_t> SendOnce(IoSequence& data, int flags, netstack::StampPlaces stamps, fiber::Time deadline);
  // `time`: told when what was read had come; may be null.
  Result<size_t> ReceiveOnce(IoSequence& data, int flags, netstack::tcp::ReadTime* time);
  Result<> SetTimestamping(int name, std::span<const std::byte> value);
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
  // TCP_FASTOPEN_CONNECT, and whom connect(2) named then: the first bytes make the connection.
  std::atomic<bool> open_with_data_{false};
  std::atomic<bool> put_off_{false};
  sync::Mutex put_off_mu_{sync::Rank::kSocket};
  netstack::SocketAddress put_off_peer_ GUARDED_BY(put_off_mu_);
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_STREAM_SOCKET_H_
