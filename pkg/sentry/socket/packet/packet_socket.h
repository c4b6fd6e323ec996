// Private to packet: the description of a socket.
#ifndef REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_SOCKET_H_

#include <linux/if_packet.h>

#include <atomic>
#include <memory>
#include <optional>

#include "pkg/netstack/raw/packet_endpoint.h"
#include "pkg/sentry/pgalloc/memory_file.h"
#include "pkg/sentry/socket/inet/network.h"
#include "pkg/sentry/socket/packet/packet.h"
#include "pkg/sentry/socket/packet/packet_ring.h"
#include "pkg/sentry/socket/socket.h"

namespace redoubt::packetsock {

// SOCK_RAW or SOCK_DGRAM. A frame is copied once each way; sending never waits.
class PacketSocket final : public socket::Socket {
 public:
  PacketSocket(inetsock::Network& network, pgalloc::MemoryFile& memory_file, vfs::Path path, int type, int protocol,
               int flags);
  ~PacketSocket() override;

  Result<> Bind(const socket::Caller& caller, socket::Address address) override;
  Result<size_t> Send(const socket::Caller& caller, socket::OutMessage& message, int flags,
                      fiber::Time deadline) override;
  Result<size_t> Receive(socket::InMessage& message, int flags, fiber::Time deadline) override;
  Result<socket::AddressBytes> LocalName() override;
  Result<socket::AddressBytes> PeerName() override { return Err(EOPNOTSUPP); }
  // packet_options.cc
  Result<> SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) override;
  Result<std::vector<std::byte>> GetOption(const socket::Caller& caller, int level, int name) override;
  Result<std::vector<std::byte>> AnswerOption(const socket::Caller& caller, int level, int name,
                                              std::span<const std::byte> given) override;
  bool AsksWithOption(int level, int name) const override { return level == SOL_PACKET && name == PACKET_HDRLEN; }

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override { return SendBytes(src, std::nullopt); }
  Result<uint64_t> Ioctl(MemoryIo& io, uint32_t command, uint64_t arg) override;
  Result<> ConfigureMMap(mm::MMapOptions& options) override;
  waiter::EventMask Readiness(waiter::EventMask mask) override;
  void RegisterWaiter(waiter::Entry& entry) override { endpoint_->waiters().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { endpoint_->waiters().Unregister(entry); }

  SocketInfo Describe() const;

 protected:
  int TakeError() override { return endpoint_->TakeError(); }
  void BuffersChanged() override;
  Result<> AttachFilter(std::shared_ptr<const bpf::Program> program) override {
    endpoint_->SetFilter(std::move(program));
    return {};
  }

 private:
  static constexpr size_t kMaxFrame = 65536 + 14;  // the loopback's MTU with a link header

  struct Destination {
    uint32_t interface_index = 0;
    uint16_t ethertype = 0;
    std::optional<netstack::LinkAddress> link;
  };
  Result<Destination> ParseDestination(socket::Address address) const;
  Result<size_t> SendBytes(IoSequence& data, const std::optional<Destination>& to);
  Result<size_t> ReceiveOnce(socket::InMessage& message, int flags);
  Result<> SetFanout(std::span<const std::byte> value);
  Result<> SetMembership(int name, std::span<const std::byte> value);
  Result<> SetRing(std::span<const std::byte> value) EXCLUDES(ring_mu_);
  Result<> SetRingShape(int name, int value) EXCLUDES(ring_mu_);
  RefPtr<PacketRing> ring() const EXCLUDES(ring_mu_);

  inetsock::Network& network_;
  pgalloc::MemoryFile& memory_file_;
  const RefPtr<netstack::PacketEndpoint> endpoint_;
  std::atomic<bool> auxdata_{false}, original_device_{false}, bypass_{false};
  std::atomic<int> fanout_{0};  // PACKET_FANOUT, as it was given
  fiber::Mutex set_ring_mu_;    // one change of the ring at a time
  mutable sync::Mutex ring_mu_{sync::Rank::kSocket};
  int version_ GUARDED_BY(ring_mu_) = TPACKET_V1;
  uint32_t reserve_ GUARDED_BY(ring_mu_) = 0;
  RefPtr<PacketRing> ring_ GUARDED_BY(ring_mu_);
};

}  // namespace redoubt::packetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_PACKET_PACKET_SOCKET_H_
