#include "pkg/sentry/socket/inet/datagram_transport.h"

#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "pkg/netstack/raw/raw.h"
#include "pkg/netstack/udp/udp.h"
#include "pkg/sentry/socket/socket.h"
#include "pkg/sync/mutex.h"

namespace redoubt::inetsock {
namespace {

using netstack::Address;
using netstack::Buffer;
using netstack::Family;
using netstack::SendOptions;
using netstack::SocketAddress;

class Udp final : public DatagramTransport {
 public:
  Udp(Network& network, Family family) : endpoint_(netstack::UdpEndpoint::Create(network.udp(), family)) {}
  netstack::DatagramEndpoint& endpoint() override { return *endpoint_; }
  Result<> Bind(const SocketAddress& address) override { return endpoint_->Bind(address); }
  Result<> Connect(const SocketAddress& peer) override { return endpoint_->Connect(peer); }
  Result<> Disconnect() override { return endpoint_->Disconnect(); }
  Result<size_t> Send(Buffer data, const std::optional<SocketAddress>& to, const SendOptions& own) override {
    return endpoint_->Send(std::move(data), to, own);
  }
  Result<> Shutdown(bool read, bool write) override { return endpoint_->Shutdown(read, write); }
  void Close() override { endpoint_->Close(); }
  SocketAddress local() override { return endpoint_->local(); }
  std::optional<SocketAddress> peer() override { return endpoint_->peer(); }

 private:
  const RefPtr<netstack::UdpEndpoint> endpoint_;
};

// What getsockname(2) and getpeername(2) tell, which these endpoints do not keep.
class Names {
 public:
  explicit Names(Family family) { local_.address = Address::Any(family); }
  SocketAddress local() {
    sync::MutexLock lock(mu_);
    return local_;
  }
  std::optional<SocketAddress> peer() {
    sync::MutexLock lock(mu_);
    return peer_;
  }
  void set_local(const SocketAddress& a) {
    sync::MutexLock lock(mu_);
    local_ = a;
  }
  void set_peer(const std::optional<SocketAddress>& a) {
    sync::MutexLock lock(mu_);
    peer_ = a;
  }

 private:
  sync::Mutex mu_{sync::Rank::kLeaf};
  SocketAddress local_ GUARDED_BY(mu_);
  std::optional<SocketAddress> peer_ GUARDED_BY(mu_);
};

class Ping final : public DatagramTransport {
 public:
  Ping(Network& network, Family family)
      : endpoint_(netstack::PingEndpoint::Create(network.ping(family))), names_(family) {}
  netstack::DatagramEndpoint& endpoint() override { return *endpoint_; }
  Result<> Bind(const SocketAddress& address) override {
    TRY(endpoint_->Bind(address));
    names_.set_local(address);
    return {};
  }
  Result<> Connect(const SocketAddress& peer) override {
    TRY(endpoint_->Connect(peer));
    names_.set_peer(peer);
    return {};
  }
  Result<> Disconnect() override { return Err(EOPNOTSUPP); }
  Result<size_t> Send(Buffer data, const std::optional<SocketAddress>& to, const SendOptions& own) override {
    return endpoint_->Send(std::move(data), to, own);
  }
  Result<> Shutdown(bool, bool) override { return Err(peer() ? EOPNOTSUPP : ENOTCONN); }
  void Close() override { endpoint_->Close(); }
  SocketAddress local() override {
    SocketAddress a = names_.local();
    a.port = endpoint_->id();
    return a;
  }
  std::optional<SocketAddress> peer() override { return names_.peer(); }

 private:
  const RefPtr<netstack::PingEndpoint> endpoint_;
  Names names_;
};

class Raw final : public DatagramTransport {
 public:
  Raw(Network& network, Family family, uint8_t protocol)
      : family_(family),
        protocol_(protocol),
        endpoint_(netstack::RawEndpoint::Create(network.stack(), family, protocol)),
        header_included_(protocol == IPPROTO_RAW),
        names_(family) {}
  netstack::DatagramEndpoint& endpoint() override { return *endpoint_; }
  // Ports mean nothing here.
  Result<> Bind(const SocketAddress& address) override {
    TRY(endpoint_->Bind(address));
    names_.set_local({address.address, 0, address.interface_index});
    return {};
  }
  Result<> Connect(const SocketAddress& peer) override {
    TRY(endpoint_->Connect(peer));
    names_.set_peer(SocketAddress{peer.address, 0, peer.interface_index});
    return {};
  }
  Result<> Disconnect() override {
    TRY(endpoint_->Connect(std::nullopt));
    names_.set_peer(std::nullopt);
    return {};
  }
  Result<size_t> Send(Buffer data, const std::optional<SocketAddress>& to, const SendOptions& own) override {
    return endpoint_->Send(std::move(data), to, own);
  }
  Result<> Shutdown(bool, bool) override { return Err(peer() ? EOPNOTSUPP : ENOTCONN); }
  void Close() override { endpoint_->Close(); }
  SocketAddress local() override {
    SocketAddress a = names_.local();
    a.port = protocol_;  // as Linux has it
    return a;
  }
  std::optional<SocketAddress> peer() override { return names_.peer(); }

  std::optional<Result<>> SetOption(int level, int name, std::span<const std::byte> value) override {
    if (IsHeaderOption(level, name)) return SetHeader(value);
    size_t words = FilterWords(level, name);
    if (words == 0) return std::nullopt;
    std::array<uint32_t, 8> blocked{};
    if (value.size() < words * sizeof(uint32_t) && family_ == Family::kIpv6) return Result<>(Err(EINVAL));
    std::memcpy(blocked.data(), value.data(), std::min(value.size(), words * sizeof(uint32_t)));
    sync::MutexLock lock(mu_);
    blocked_ = blocked;
    endpoint_->SetFilter(blocked);
    return Result<>();
  }
  std::optional<std::vector<std::byte>> GetOption(int level, int name) override {
    sync::MutexLock lock(mu_);
    if (IsHeaderOption(level, name)) return socket::OptionBytes(int{header_included_});
    const size_t words = FilterWords(level, name);
    if (words == 0) return std::nullopt;
    std::vector<std::byte> bytes = socket::OptionBytes(blocked_);
    bytes.resize(words * sizeof(uint32_t));
    return bytes;
  }

 private:
  bool IsHeaderOption(int level, int name) const {
    return family_ == Family::kIpv4 ? level == IPPROTO_IP && name == IP_HDRINCL
                                    : level == IPPROTO_IPV6 && name == IPV6_HDRINCL;
  }
  // ICMP_FILTER (raw(7)), ICMP6_FILTER (RFC 3542 section 3.2): how long; 0 for another option.
  size_t FilterWords(int level, int name) const {
    if (protocol_ == IPPROTO_ICMP && level == SOL_RAW && name == ICMP_FILTER) return 1;
    if (protocol_ == IPPROTO_ICMPV6 && level == IPPROTO_ICMPV6 && name == ICMP6_FILTER) return 8;
    return 0;
  }
  Result<> SetHeader(std::span<const std::byte> value) {
    const bool on = TRY(socket::IntOption(value)) != 0;
    sync::MutexLock lock(mu_);
    header_included_ = on;
    endpoint_->SetHeaderIncluded(on);
    return {};
  }

  const Family family_;
  const uint8_t protocol_;
  const RefPtr<netstack::RawEndpoint> endpoint_;
  sync::Mutex mu_{sync::Rank::kSocket};
  bool header_included_ GUARDED_BY(mu_);
  std::array<uint32_t, 8> blocked_ GUARDED_BY(mu_){};
  Names names_;
};

}  // namespace

std::unique_ptr<DatagramTransport> MakeUdp(Network& network, Family family) {
  return std::make_unique<Udp>(network, family);
}
std::unique_ptr<DatagramTransport> MakePing(Network& network, Family family) {
  return std::make_unique<Ping>(network, family);
}
std::unique_ptr<DatagramTransport> MakeRaw(Network& network, Family family, uint8_t protocol) {
  return std::make_unique<Raw>(network, family, protocol);
}

}  // namespace redoubt::inetsock
