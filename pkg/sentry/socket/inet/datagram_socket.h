// Private to inet: SOCK_DGRAM and SOCK_RAW: udp(7), icmp(7), raw(7).
#ifndef REDOUBT_PKG_SENTRY_SOCKET_INET_DATAGRAM_SOCKET_H_
#define REDOUBT_PKG_SENTRY_SOCKET_INET_DATAGRAM_SOCKET_H_

#include <netinet/in.h>

#include <atomic>
#include <memory>
#include <optional>

#include "pkg/netstack/transport/datagram_endpoint.h"
#include "pkg/sentry/socket/inet/datagram_transport.h"
#include "pkg/sentry/socket/inet/inet_socket.h"

namespace redoubt::inetsock {

// A datagram is copied once each way. Sending never waits: what the receiver has no room for is dropped, as on a
// network.
class DatagramSocket final : public InetSocket {
 public:
  DatagramSocket(Network& network, vfs::Path path, int family, int type, int protocol, int flags,
                 std::unique_ptr<DatagramTransport> transport);
  ~DatagramSocket() override;

  Result<> Bind(const socket::Caller& caller, socket::Address address) override;
  Result<> Connect(const socket::Caller& caller, socket::Address address, fiber::Time deadline) override;
  Result<size_t> Send(const socket::Caller& caller, socket::OutMessage& message, int flags,
                      fiber::Time deadline) override;
  Result<size_t> Receive(socket::InMessage& message, int flags, fiber::Time deadline) override;
  Result<> Shutdown(int how) override;
  Result<socket::AddressBytes> LocalName() override;
  Result<socket::AddressBytes> PeerName() override;
  // datagram_options.cc
  Result<> SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) override;
  Result<std::vector<std::byte>> GetOption(const socket::Caller& caller, int level, int name) override;
  // datagram_groups.cc
  Result<std::vector<std::byte>> AnswerOption(const socket::Caller& caller, int level, int name,
                                              std::span<const std::byte> given) override;
  bool AsksWithOption(int level, int name) const override;

  Result<size_t> Read(IoSequence& dst, vfs::IoFlags flags) override;
  Result<size_t> Write(IoSequence& src, vfs::IoFlags flags) override { return SendBytes(src, {}, 0); }
  const void* EndpointKey() const override { return &endpoint_; }
  waiter::EventMask Readiness(waiter::EventMask mask) override {
    return (endpoint_.Readiness() | ZerocopyReadiness()) & mask;
  }
  void RegisterWaiter(waiter::Entry& entry) override { endpoint_.waiters().Register(entry); }
  void UnregisterWaiter(waiter::Entry& entry) override { endpoint_.waiters().Unregister(entry); }

 protected:
  int TakeError() override { return endpoint_.TakeError(); }
  bool HasPeekOffset() const override { return is_udp(); }
  Result<> AttachFilter(std::shared_ptr<const bpf::Program> program) override {
    endpoint_.SetFilter(std::move(program));
    return {};
  }
  Result<size_t> Readable() override { return endpoint_.ReceiveQueueBytes(); }
  Result<size_t> Unsent() override { return size_t{0}; }  // nothing waits here

 private:
  static constexpr size_t kMaxPayload = 65535 - 8;

  // A raw socket may be of its packets.
  bool is_udp() const { return type() == SOCK_DGRAM && protocol() == IPPROTO_UDP; }

  // Ancillary data that the reader asked for.
  struct alignas(8) Wanted {  // as wide as an atomic is
    bool pktinfo = false, ttl = false, tos = false, pktinfo6 = false, hop_limit = false, traffic_class = false;
    bool ip_options = false;  // remembered: options of what was received are not kept
  };

  // What MSG_MORE or UDP_CORK will send as one: the first piece says where to, and by which options.
  struct Way {
    std::optional<netstack::SocketAddress> to;
    netstack::SendOptions own;
  };
  Result<size_t> SendBytes(IoSequence& data, const Way& way, int flags);
  // datagram_control.cc: what ancillary data says. EINVAL.
  Result<netstack::SendOptions> ParseControl(std::span<const socket::Control> control, bool to_ipv4) const;
  Result<size_t> ReceiveOnce(socket::InMessage& message, int flags);
  Result<size_t> ReceiveError(socket::InMessage& message);
  Result<size_t> ReceiveStamp(const netstack::Stamp& stamp, socket::InMessage& message) const;
  void AddControl(const netstack::Packet& packet, socket::InMessage& message) const;
  Result<> SetSocketOption(const socket::Caller& caller, int name, std::span<const std::byte> value);
  // datagram_groups.cc: IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP, IP_MULTICAST_IF, ... and those about sources; false:
  // none of those.
  Result<bool> SetGroupOption(int level, int name, std::span<const std::byte> value);
  Result<bool> SetSourceOption(int level, int name, std::span<const std::byte> value);
  void SetMulticastInterface(uint32_t index, const netstack::Address& source);
  bool HasLevel(int level) const;  // IPPROTO_IP, IPPROTO_IPV6
  bool* WantedOption(Wanted& wanted, int level, int name) const;
  template <typename Change>
  void ChangeOptions(Change&& change);

  const std::unique_ptr<DatagramTransport> transport_;
  netstack::DatagramEndpoint& endpoint_;  // the transport's
  fiber::Mutex options_mu_;
  std::atomic<Wanted> wanted_{};

  // MSG_MORE, UDP_CORK: what is to become one datagram.
  fiber::Mutex cork_mu_;
  bool cork_ GUARDED_BY(cork_mu_) = false;
  bool pending_ GUARDED_BY(cork_mu_) = false;
  netstack::Buffer corked_ GUARDED_BY(cork_mu_);
  Way corked_way_ GUARDED_BY(cork_mu_);
};

}  // namespace redoubt::inetsock

#endif  // REDOUBT_PKG_SENTRY_SOCKET_INET_DATAGRAM_SOCKET_H_
