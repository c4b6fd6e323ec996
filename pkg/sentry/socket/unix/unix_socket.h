// Private to unix: the description of a socket.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_SOCKET_H_

#include <utility>

#include "pkg/sentry/socket/socket.h"
#include "pkg/sentry/socket/unix/endpoint.h"

namespace redoubt::unixsock {

class UnixSocket final : public socket::Socket {
 public:
  UnixSocket(vfs::Path path, int flags, RefPtr<Endpoint> endpoint, Identity owner);
  ~UnixSocket() override;

  Result<> Bind(const socket::Caller& caller, socket::Address address) override;
  Result<> Listen(const socket::Caller& caller, int backlog) override;
  Result<> Connect(const socket::Caller& caller, socket::Address address, fiber::Time deadline) override;
  Result<RefPtr<Socket>> Accept(const socket::Caller& caller, int flags, fiber::Time deadline) override;
  Result<size_t> Send(const socket::Caller& caller, socket::OutMessage& message, int flags,
                      fiber::Time deadline) override;
  Result<size_t> Receive(socket::InMessage& message, int flags, fiber::Time deadline) override;
  Result<> Shutdown(int how) override;
  Result<socket::AddressBytes> LocalName() override { return FormatAddress(endpoint_->name()); }
  Result<socket::AddressBytes> PeerName() override;
  Result<> SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) override;
  Result<std::vector<std::byte>> GetOption(const socket::Caller& caller, int level, int name) override;

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override;
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  waiter::EventMask Readiness(waiter::EventMask mask) override { return endpoint_->Readiness() & mask; }
  void RegisterWaiter(waiter::Entry& entry) override { endpoint_->events().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { endpoint_->events().Unregister(entry); }

  Endpoint& endpoint() const { return *endpoint_; }
  SocketInfo Describe() const;

 protected:
  int TakeError() override { return endpoint_->TakeError(); }
  bool HasPeekOffset() const override { return true; }
  bool IsListening() const override { return endpoint_->listening(); }
  Result<> AttachFilter(std::shared_ptr<const bpf::Program> program) override {
    endpoint_->SetFilter(std::move(program));
    return {};
  }
  void BuffersChanged() override { endpoint_->SetSendLimit(send_buffer()); }

 private:
  Result<> BindPath(const socket::Caller& caller, const Name& name);
  // The endpoint that an address names: ECONNREFUSED, ENOENT, EACCES, EPROTOTYPE.
  Result<RefPtr<Endpoint>> Find(const socket::Caller& caller, socket::Address address) const;
  Result<size_t> ReceiveOnce(socket::InMessage& message, int flags);

  const RefPtr<Endpoint> endpoint_;
  const Identity owner_;  // who made it
  fiber::Mutex bind_mu_;
  const void* abstract_space_ GUARDED_BY(bind_mu_) = nullptr;  // with an abstract name
};

}  // namespace redoubt::unixsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_UNIX_UNIX_SOCKET_H_
