// Options of stream sockets: socket(7), ip(7), ipv6(7), tcp(7).
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <climits>
#include <string>

#include "pkg/sentry/socket/inet/ip_options.h"
#include "pkg/sentry/socket/inet/stream_socket.h"

namespace redoubt::inetsock {

using netstack::kMillisecond;
using netstack::kSecond;
using netstack::tcp::EndpointOptions;
using netstack::tcp::Settings;
using socket::OptionBytes;

namespace {

std::vector<std::byte> Int(int64_t n) { return OptionBytes<int>(static_cast<int>(std::min<int64_t>(n, INT_MAX))); }

Result<int> InRange(int n, int low, int high) {
  if (n < low || n > high) return Err(EINVAL);
  return n;
}

// include/net/tcp.h's limits, as setsockopt shows them.
constexpr int kMaxKeepSeconds = 32767, kMaxKeepCount = 127, kMaxSynCount = 127;
constexpr int kMinMaxSegment = 88, kMaxMaxSegment = 32767;
constexpr int kMaxFinWait2 = 120;

}  // namespace

template <typename Change>
void StreamSocket::ChangeSettings(Change&& change) {
  fiber::MutexLock lock(options_mu_);
  Settings settings = endpoint_->settings();
  change(settings);
  endpoint_->SetSettings(settings);
}

template <typename Change>
void StreamSocket::ChangeOptions(Change&& change) {
  fiber::MutexLock lock(options_mu_);
  EndpointOptions options = endpoint_->options();
  change(options);
  endpoint_->SetOptions(options);
}

Result<> StreamSocket::SetTimestamping(int name, std::span<const std::byte> value) {
  constexpr uint32_t kIdTcp = 1 << 16;  // SOF_TIMESTAMPING_OPT_ID_TCP
  fiber::MutexLock lock(options_mu_);
  Timestamping then;
  then.Inherit(timestamping_);
  TRY(then.Set(name, value));
  if (then.has(SOF_TIMESTAMPING_OPT_ID) && !timestamping_.has(SOF_TIMESTAMPING_OPT_ID)) {
    TRY(endpoint_->StartStampNumbers(then.has(kIdTcp)));
  }
  timestamping_.Inherit(then);
  EndpointOptions options = endpoint_->options();
  options.stamp_received = then.wants_received();
  options.number_stamps = then.has(SOF_TIMESTAMPING_OPT_ID);
  options.stamps_have_frames = !then.has(SOF_TIMESTAMPING_OPT_TSONLY);
  endpoint_->SetOptions(options);
  return {};
}

Result<> StreamSocket::SetSocketOption(const socket::Caller& caller, int name, std::span<const std::byte> value) {
  if (Timestamping::IsOption(name)) return SetTimestamping(name, value);
  switch (name) {
    case SO_BINDTODEVICE:
    case SO_BINDTOIFINDEX: {
      const uint32_t index = TRY(name == SO_BINDTODEVICE ? InterfaceOption(value) : IndexOption(value));
      ChangeOptions([&](EndpointOptions& o) { o.bound_interface = index; });
      return {};
    }
    case SO_RCVLOWAT: {
      const int n = TRY(socket::IntOption(value));
      ChangeOptions([&](EndpointOptions& o) { o.receive_low_water = n < 0 ? INT_MAX : std::max(n, 1); });
      return {};
    }
    default:
      break;
  }
  TRY(Socket::SetOption(caller, SOL_SOCKET, name, value));
  switch (name) {
    case SO_REUSEADDR:
    case SO_REUSEPORT:
      ChangeOptions([&](EndpointOptions& o) {
        o.reuse_address = option_on(SO_REUSEADDR);
        o.reuse_port = option_on(SO_REUSEPORT);
        o.owner = caller.creds.euid;
      });
      return {};
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
      ChangeOptions([&](EndpointOptions& o) { o.send_buffer = send_buffer(); });
      return {};
    case SO_RCVBUF:
    case SO_RCVBUFFORCE:
      ChangeOptions([&](EndpointOptions& o) { o.receive_buffer = receive_buffer(); });
      return {};
    case SO_KEEPALIVE:
    case SO_OOBINLINE:
      ChangeSettings([&](Settings& s) {
        s.keepalive = option_on(SO_KEEPALIVE);
        s.oob_inline = option_on(SO_OOBINLINE);
      });
      return {};
    default:
      return {};
  }
}

Result<> StreamSocket::SetTcpOption(int name, std::span<const std::byte> value) {
  if (name == TCP_CONGESTION) {
    std::string algorithm;
    for (std::byte b : value.first(std::min<size_t>(value.size(), 15))) {
      if (b == std::byte{0}) break;
      algorithm.push_back(static_cast<char>(b));
    }
    if (algorithm.empty()) return Err(EINVAL);
    auto found = netstack::tcp::FindCongestionAlgorithm(algorithm);
    if (!found) return Err(ENOENT);
    ChangeOptions([&](EndpointOptions& o) { o.congestion = *found; });
    return {};
  }
  const int n = TRY(socket::IntOption(value));
  switch (name) {
    case TCP_NODELAY:
      ChangeSettings([&](Settings& s) { s.nodelay = n != 0; });
      return {};
    case TCP_CORK:
      ChangeSettings([&](Settings& s) { s.cork = n != 0; });
      return {};
    case TCP_QUICKACK:
      endpoint_->SetQuickAck((n & 1) != 0);
      return {};
    case TCP_MAXSEG:
      if (n != 0) TRY(InRange(n, kMinMaxSegment, kMaxMaxSegment));
      ChangeOptions([&](EndpointOptions& o) { o.max_segment = static_cast<uint16_t>(n); });
      return {};
    case TCP_KEEPIDLE:
      TRY(InRange(n, 1, kMaxKeepSeconds));
      ChangeSettings([&](Settings& s) { s.keep_idle = n * kSecond; });
      return {};
    case TCP_KEEPINTVL:
      TRY(InRange(n, 1, kMaxKeepSeconds));
      ChangeSettings([&](Settings& s) { s.keep_interval = n * kSecond; });
      return {};
    case TCP_KEEPCNT:
      TRY(InRange(n, 1, kMaxKeepCount));
      ChangeSettings([&](Settings& s) { s.keep_count = static_cast<uint8_t>(n); });
      return {};
    case TCP_SYNCNT:
      TRY(InRange(n, 1, kMaxSynCount));
      ChangeSettings([&](Settings& s) { s.syn_retries = static_cast<uint8_t>(n); });
      return {};
    case TCP_LINGER2:
      ChangeSettings([&](Settings& s) { s.fin_wait2_timeout = std::clamp(n, 0, kMaxFinWait2) * kSecond; });
      return {};
    case TCP_USER_TIMEOUT:
      if (n < 0) return Err(EINVAL);
      ChangeSettings([&](Settings& s) { s.user_timeout = n * kMillisecond; });
      return {};
    case TCP_WINDOW_CLAMP:
      if (n < 0) return Err(EINVAL);
      ChangeSettings([&](Settings& s) { s.window_clamp = static_cast<uint32_t>(n); });
      return {};
    case TCP_DEFER_ACCEPT:
      ChangeOptions([&](EndpointOptions& o) { o.defer_accept = std::max(n, 0) * kSecond; });
      return {};
    case TCP_NOTSENT_LOWAT:
      ChangeOptions([&](EndpointOptions& o) { o.not_sent_low_water = static_cast<uint32_t>(n); });
      return {};
    case TCP_FASTOPEN_CONNECT:
      if (n != 0 && n != 1) return Err(EINVAL);
      if (endpoint_->state() != netstack::tcp::State::kClosed) return Err(EINVAL);
      open_with_data_.store(n != 0, std::memory_order_relaxed);
      return {};
    case TCP_FASTOPEN:
      if (n < 0) return Err(EINVAL);
      ChangeOptions([&](EndpointOptions& o) { o.fast_open_queue = static_cast<uint32_t>(n); });
      return {};
    default:
      return Err(ENOPROTOOPT);
  }
}

Result<> StreamSocket::SetOption(const socket::Caller& caller, int level, int name, std::span<const std::byte> value) {
  switch (level) {
    case SOL_SOCKET:
      return SetSocketOption(caller, name, value);
    case IPPROTO_TCP:
      return SetTcpOption(name, value);
    case IPPROTO_IPV6:
      if (family() != AF_INET6) return Err(ENOPROTOOPT);
      if (name == IPV6_V6ONLY) {
        const int n = TRY(socket::IntOption(value));
        if (endpoint_->local().port != 0) return Err(EINVAL);
        ChangeOptions([&](EndpointOptions& o) { o.v6_only = n != 0; });
        return {};
      }
      [[fallthrough]];
    case IPPROTO_IP: {
      Result<> set;
      ChangeOptions([&](EndpointOptions& o) { set = SetIpOption(caller, o, level, name, value); });
      return set;
    }
    default:
      return Err(ENOPROTOOPT);
  }
}

Result<std::vector<std::byte>> StreamSocket::GetTcpOption(int name) {
  const Settings s = endpoint_->settings();
  const EndpointOptions o = endpoint_->options();
  switch (name) {
    case TCP_NODELAY:
      return Int(s.nodelay);
    case TCP_CORK:
      return Int(s.cork);
    case TCP_MAXSEG:
      return Int(endpoint_->max_segment());
    case TCP_KEEPIDLE:
      return Int(s.keep_idle / kSecond);
    case TCP_KEEPINTVL:
      return Int(s.keep_interval / kSecond);
    case TCP_KEEPCNT:
      return Int(s.keep_count);
    case TCP_SYNCNT:
      return Int(s.syn_retries);
    case TCP_LINGER2:
      return Int(s.fin_wait2_timeout / kSecond);
    case TCP_USER_TIMEOUT:
      return Int(s.user_timeout / kMillisecond);
    case TCP_WINDOW_CLAMP:
      return Int(s.window_clamp);
    case TCP_DEFER_ACCEPT:
      return Int(o.defer_accept / kSecond);
    case TCP_NOTSENT_LOWAT:
      return OptionBytes(o.not_sent_low_water);
    case TCP_FASTOPEN:
      return Int(o.fast_open_queue);
    case TCP_FASTOPEN_CONNECT:
      return Int(open_with_data_.load(std::memory_order_relaxed));
    case TCP_CONGESTION: {
      constexpr size_t kNameSize = 16;  // TCP_CA_NAME_MAX
      std::string algorithm(netstack::tcp::CongestionName(
          o.congestion.value_or(network_.tcp().sysctls().congestion.load(std::memory_order_relaxed))));
      algorithm.resize(kNameSize);
      auto bytes = std::as_bytes(std::span(algorithm));
      return std::vector<std::byte>(bytes.begin(), bytes.end());
    }
    case TCP_INFO: {
      std::vector<std::byte> info(512);
      info.resize(endpoint_->Info(info));
      return info;
    }
    default:
      return Err(ENOPROTOOPT);
  }
}

Result<std::vector<std::byte>> StreamSocket::GetOption(const socket::Caller& caller, int level, int name) {
  switch (level) {
    case SOL_SOCKET:
      if (Timestamping::IsOption(name)) return timestamping_.Get(name);
      switch (name) {
        case SO_RCVBUF:
          return Int(endpoint_->receive_buffer());
        case SO_SNDBUF:
          return Int(endpoint_->send_buffer());
        case SO_RCVLOWAT:
          return Int(endpoint_->options().receive_low_water);
        case SO_BINDTOIFINDEX:
          return OptionBytes<uint32_t>(endpoint_->options().bound_interface);
        case SO_BINDTODEVICE: {
          const std::string interface = InterfaceName(endpoint_->options().bound_interface);
          std::vector<std::byte> bytes;
          if (interface.empty()) return bytes;
          for (char c : interface) bytes.push_back(static_cast<std::byte>(c));
          bytes.push_back(std::byte{0});
          return bytes;
        }
        default:
          return Socket::GetOption(caller, level, name);
      }
    case IPPROTO_TCP:
      return GetTcpOption(name);
    case IPPROTO_IPV6:
      if (family() != AF_INET6) return Err(ENOPROTOOPT);
      [[fallthrough]];
    case IPPROTO_IP:
      return Int(TRY(GetIpOption(endpoint_->options(), level, name, network_.stack().default_ttl())));
    default:
      return Err(ENOPROTOOPT);
  }
}

}  // namespace redoubt::inetsock
