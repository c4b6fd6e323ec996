// Private to netlink: a socket of AF_NETLINK, netlink(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_NETLINK_NETLINK_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_NETLINK_NETLINK_SOCKET_H_

#include <atomic>

#include "pkg/sentry/socket/netlink/protocol.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::netlink {

// Requests are carried out within the call that sends them, so that their answers are there when it returns. What
// processes send each other is not carried: there is nobody but the kernel to talk to.
class NetlinkSocket final : public socket::Socket {
 public:
  NetlinkSocket(Protocol& protocol, int number, int type, const socket::Caller& opener, int flags);
  ~NetlinkSocket() override;

  Result<> Bind(const socket::Caller& caller, socket::Address address) override;
  Result<> Connect(const socket::Caller& caller, socket::Address address, fiber::Time deadline) override;
  Result<size_t> Send(const socket::Caller& caller, socket::OutMessage& message, int flags,
                      fiber::Time deadline) override;
  Result<size_t> Receive(socket::InMessage& message, int flags, fiber::Time deadline) override;
  Result<socket::AddressBytes> LocalName() override;
  Result<socket::AddressBytes> PeerName() override;
  Result<> SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) override;
  Result<std::vector<std::byte>> GetOption(const socket::Caller& caller, int level, int name) override;
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;

  const RefPtr<Port>& port() const { return port_; }

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { port_->waiters().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { port_->waiters().Unregister(entry); }

 protected:
  int TakeError() override { return port_->TakeError(); }
  Result<> AttachFilter(std::shared_ptr<const bpf::Program> program) override {
    port_->SetFilter(std::move(program));
    return {};
  }
  void BuffersChanged() override { port_->set_limit(receive_buffer()); }

 private:
  static constexpr size_t kMaxSend = 256 << 10;  // bytes of one call

  // The answer to one message: what was asked for, then the end of the dump, the error or the acknowledgement.
  void Answer(bool may_change, const Message& message);
  Result<> EnsureNumber(uint32_t pid);
  Result<size_t> SendBytes(bool may_change, uint32_t pid, IoSequence& data);
  Result<size_t> ReceiveOnce(socket::InMessage& message, int flags);
  bool on(int option) const { return (options_.load(std::memory_order_relaxed) >> option & 1) != 0; }

  Protocol& protocol_;
  const bool opener_may_change_;
  const RefPtr<Port> port_;
  std::atomic<uint32_t> peer_{0}, peer_groups_{0};  // of connect(2)
  std::atomic<uint32_t> options_{0};                // NETLINK_*, a bit each
};

}  // namespace redoubt::netlink

#endif  // REDOUBT_PKG_SENTRY_SOCKET_NETLINK_NETLINK_SOCKET_H_
