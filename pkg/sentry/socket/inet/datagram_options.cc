// Options of datagram sockets: socket(7), ip(7), ipv6(7), udp(7).
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include <cstring>
#include <string>

#include "pkg/sentry/socket/inet/datagram_socket.h"
#include "pkg/sentry/socket/inet/ip_options.h"

namespace redoubt::inetsock {

using netstack::Address;
using netstack::DatagramOptions;
using socket::OptionBytes;

template <typename Change>
void DatagramSocket::ChangeOptions(Change&& change) {
  fiber::MutexLock lock(options_mu_);
  DatagramOptions options = endpoint_.options();
  change(options);
  endpoint_.SetOptions(options);
}

bool DatagramSocket::HasLevel(int level) const {
  // A socket of IPv6 has both, as it may speak both; a raw one does not.
  if (level == IPPROTO_IP) return family() == AF_INET || type() != SOCK_RAW;
  return level == IPPROTO_IPV6 && family() == AF_INET6;
}

bool* DatagramSocket::WantedOption(Wanted& w, int level, int name) const {
  if (level == IPPROTO_IP) {
    switch (name) {
      case IP_PKTINFO:
        return &w.pktinfo;
      case IP_RECVTTL:
        return &w.ttl;
      case IP_RECVTOS:
        return &w.tos;
      case IP_RECVOPTS:
      case IP_RETOPTS:
        return &w.ip_options;
      default:
        return nullptr;
    }
  }
  switch (name) {
    case IPV6_RECVPKTINFO:
      return &w.pktinfo6;
    case IPV6_RECVHOPLIMIT:
      return &w.hop_limit;
    case IPV6_RECVTCLASS:
      return &w.traffic_class;
    default:
      return nullptr;
  }
}

Result<> DatagramSocket::SetSocketOption(const socket::Caller& caller, int name, std::span<const std::byte> value) {
  if (name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX) {
    const uint32_t index = TRY(name == SO_BINDTODEVICE ? InterfaceOption(value) : IndexOption(value));
    ChangeOptions([&](DatagramOptions& o) { o.bound_interface = index; });
    return {};
  }
  if (Timestamping::IsOption(name)) {
    fiber::MutexLock lock(options_mu_);
    const bool numbered = timestamping_.has(SOF_TIMESTAMPING_OPT_ID);
    TRY(timestamping_.Set(name, value));
    DatagramOptions o = endpoint_.options();
    o.stamps = timestamping_.places();
    o.number_stamps = timestamping_.has(SOF_TIMESTAMPING_OPT_ID);
    o.stamps_have_frames = !timestamping_.has(SOF_TIMESTAMPING_OPT_TSONLY);
    if (o.number_stamps && !numbered) endpoint_.RestartStampNumbers();
    endpoint_.SetOptions(o);
    return {};
  }
  TRY(Socket::SetOption(caller, SOL_SOCKET, name, value));
  ChangeOptions([&](DatagramOptions& o) {
    o.broadcast = option_on(SO_BROADCAST);
    o.reuse_address = option_on(SO_REUSEADDR);
    o.reuse_port = option_on(SO_REUSEPORT);
    o.owner = caller.creds.euid;
    o.receive_buffer = receive_buffer();
  });
  return {};
}

void DatagramSocket::SetMulticastInterface(uint32_t index, const Address& source) {
  ChangeOptions([&](DatagramOptions& o) {
    o.multicast_interface = index;
    o.multicast_source = source;
  });
}

Result<> DatagramSocket::SetOption(const socket::Caller& caller, int level, int name,
                                   std::span<const std::byte> value) {
  if (level == SOL_SOCKET) return SetSocketOption(caller, name, value);
  if (std::optional<Result<>> own = transport_->SetOption(level, name, value)) return *own;
  if (level == IPPROTO_UDP && is_udp()) {
    if (name == UDP_SEGMENT || name == UDP_GRO) {
      const int n = TRY(socket::IntOption(value));
      if (name == UDP_SEGMENT && (n < 0 || n > UINT16_MAX)) return Err(EINVAL);
      ChangeOptions([&](DatagramOptions& o) {
        if (name == UDP_SEGMENT) {
          o.segment_size = static_cast<uint16_t>(n);
        } else {
          o.join_segments = n != 0;
        }
      });
      return {};
    }
    if (name != UDP_CORK) return Err(ENOPROTOOPT);
    const bool on = TRY(socket::IntOption(value)) != 0;
    fiber::MutexLock lock(cork_mu_);
    cork_ = on;
    if (on || !std::exchange(pending_, false)) return {};
    TRY(transport_->Send(std::exchange(corked_, netstack::Buffer()), corked_way_.to, corked_way_.own));
    return {};
  }
  if (!HasLevel(level)) return Err(ENOPROTOOPT);
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
    const bool on = TRY(socket::IntOption(value)) != 0;
    if (transport_->local().port != 0) return Err(EINVAL);
    ChangeOptions([&](DatagramOptions& o) { o.v6_only = on; });
    return {};
  }
  if (TRY(SetGroupOption(level, name, value))) return {};
  {
    fiber::MutexLock lock(options_mu_);
    Wanted wanted = wanted_.load(std::memory_order_relaxed);
    if (bool* flag = WantedOption(wanted, level, name); flag != nullptr) {
      *flag = TRY(IpOptionValue(level, value)) != 0;
      wanted_.store(wanted, std::memory_order_relaxed);
      return {};
    }
  }
  Result<> set;
  ChangeOptions([&](DatagramOptions& o) { set = SetIpOption(caller, o, level, name, value); });
  return set;
}

Result<std::vector<std::byte>> DatagramSocket::GetOption(const socket::Caller& caller, int level, int name) {
  if (level == SOL_SOCKET) {
    if (Timestamping::IsOption(name)) return timestamping_.Get(name);
    if (name == SO_BINDTOIFINDEX) return OptionBytes<uint32_t>(endpoint_.options().bound_interface);
    if (name != SO_BINDTODEVICE) return Socket::GetOption(caller, level, name);
    std::vector<std::byte> bytes;
    const std::string interface = InterfaceName(endpoint_.options().bound_interface);
    if (interface.empty()) return bytes;
    for (char c : interface) bytes.push_back(static_cast<std::byte>(c));
    bytes.push_back(std::byte{0});
    return bytes;
  }
  if (std::optional<std::vector<std::byte>> own = transport_->GetOption(level, name)) return std::move(*own);
  if (level == IPPROTO_UDP && is_udp()) {
    if (name == UDP_SEGMENT) return OptionBytes<int>(endpoint_.options().segment_size);
    if (name == UDP_GRO) return OptionBytes<int>(endpoint_.options().join_segments ? 1 : 0);
    if (name != UDP_CORK) return Err(ENOPROTOOPT);
    fiber::MutexLock lock(cork_mu_);
    return OptionBytes<int>(cork_ ? 1 : 0);
  }
  if (!HasLevel(level)) return Err(ENOPROTOOPT);
  const DatagramOptions options = endpoint_.options();
  if (level == IPPROTO_IPV6 && name == IPV6_MULTICAST_IF) {
    return OptionBytes<int>(static_cast<int>(options.multicast_interface));
  }
  if (level == IPPROTO_IP && name == IP_MULTICAST_IF) {
    return OptionBytes<uint32_t>(htonl(options.multicast_source.ipv4_value()));
  }
  Wanted wanted = wanted_.load(std::memory_order_relaxed);
  if (bool* flag = WantedOption(wanted, level, name); flag != nullptr) return OptionBytes<int>(*flag ? 1 : 0);
  return OptionBytes<int>(TRY(GetIpOption(options, level, name, network_.stack().default_ttl())));
}

}  // namespace redoubt::inetsock
