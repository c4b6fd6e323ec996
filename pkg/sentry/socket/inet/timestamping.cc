#include "pkg/sentry/socket/inet/timestamping.h"

#include <netinet/in.h>
#include <sys/time.h>
// After netinet/in.h, whose structures they would define otherwise.
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "pkg/sentry/socket/inet/address.h"
#include "pkg/sentry/socket/inet/payload.h"
#include "pkg/sentry/time/clock.h"

namespace redoubt::inetsock {

using netstack::StampBit;
using netstack::StampPlace;
using netstack::StampPlaces;
using socket::OptionBytes;

namespace {

// asm-generic/socket.h's, which sys/socket.h gives other names.
constexpr int kTimestampOld = 29, kTimestampNsOld = 35, kTimestampingOld = 37;
constexpr int kTimestampNew = 63, kTimestampNsNew = 64, kTimestampingNew = 65;

// What Linux 6.18 knows.
constexpr uint32_t kCompletion = 1 << 18;  // SOF_TIMESTAMPING_TX_COMPLETION: of Bluetooth
constexpr uint32_t kRxFilter = 1 << 17;    // SOF_TIMESTAMPING_OPT_RX_FILTER
constexpr uint32_t kIdTcp = 1 << 16;       // SOF_TIMESTAMPING_OPT_ID_TCP
constexpr uint32_t kKnown = (1 << 19) - 1;
constexpr uint32_t kRecord = SOF_TIMESTAMPING_TX_HARDWARE | SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_SCHED |
                             SOF_TIMESTAMPING_TX_ACK | kCompletion;

timespec Realtime(Network& network, netstack::Time at) {
  return clock::ToTimespec(clock::Realtime() - (network.stack().Now() - at));
}

}  // namespace

bool Timestamping::IsOption(int name) {
  switch (name) {
    case kTimestampOld:
    case kTimestampNsOld:
    case kTimestampingOld:
    case kTimestampNew:
    case kTimestampNsNew:
    case kTimestampingNew:
      return true;
    default:
      return false;
  }
}

Result<> Timestamping::Set(int name, std::span<const std::byte> value) {
  // struct so_timestamping, whose second number is for SOF_TIMESTAMPING_BIND_PHC, begins with the flags.
  const int n = TRY(socket::IntOption(value));
  State s = state_.load(std::memory_order_relaxed);
  if (name == kTimestampingOld || name == kTimestampingNew) {
    const auto flags = static_cast<uint32_t>(n);
    if ((flags & ~kKnown) != 0) return Err(EINVAL);
    if ((flags & kIdTcp) != 0 && (flags & SOF_TIMESTAMPING_OPT_ID) == 0) return Err(EINVAL);
    if ((flags & SOF_TIMESTAMPING_OPT_STATS) != 0 && (flags & SOF_TIMESTAMPING_OPT_TSONLY) == 0) return Err(EINVAL);
    if ((flags & (SOF_TIMESTAMPING_BIND_PHC | SOF_TIMESTAMPING_OPT_STATS)) != 0) return Err(EOPNOTSUPP);
    s.flags = flags;
    s.by_new_names = name == kTimestampingNew;
  } else if (n == 0) {
    s.old = Old::kOff;
  } else {
    s.old = name == kTimestampOld || name == kTimestampNew ? Old::kMicroseconds : Old::kNanoseconds;
    s.by_new_names = name == kTimestampNew || name == kTimestampNsNew;
  }
  state_.store(s, std::memory_order_relaxed);
  return {};
}

std::vector<std::byte> Timestamping::Get(int name) const {
  const State s = state_.load(std::memory_order_relaxed);
  switch (name) {
    case kTimestampOld:
      return OptionBytes<int>(s.old == Old::kMicroseconds && !s.by_new_names);
    case kTimestampNsOld:
      return OptionBytes<int>(s.old == Old::kNanoseconds && !s.by_new_names);
    case kTimestampNew:
      return OptionBytes<int>(s.old != Old::kOff && s.by_new_names);  // as Linux, of nanoseconds too
    case kTimestampNsNew:
      return OptionBytes<int>(s.old == Old::kNanoseconds && s.by_new_names);
    default:
      return OptionBytes(std::pair<uint32_t, int>(name == kTimestampingOld || s.by_new_names ? s.flags : 0, 0));
  }
}

StampPlaces Timestamping::Places(uint32_t flags) {
  StampPlaces places = 0;
  if ((flags & SOF_TIMESTAMPING_TX_SCHED) != 0) places |= StampBit(StampPlace::kScheduled);
  if ((flags & SOF_TIMESTAMPING_TX_SOFTWARE) != 0) places |= StampBit(StampPlace::kSent);
  if ((flags & SOF_TIMESTAMPING_TX_ACK) != 0) places |= StampBit(StampPlace::kAcknowledged);
  return places;
}

Result<StampPlaces> Timestamping::ParseControl(const socket::Control& control) {
  if (control.type != kTimestampingOld && control.type != kTimestampingNew) return Err(EINVAL);
  uint32_t flags;
  if (control.data.size() != sizeof(flags)) return Err(EINVAL);
  std::memcpy(&flags, control.data.data(), sizeof(flags));
  if ((flags & ~kRecord) != 0) return Err(EINVAL);
  return Places(flags);
}

bool Timestamping::wants_received() const {
  const State s = state_.load(std::memory_order_relaxed);
  return s.old != Old::kOff || (s.flags & SOF_TIMESTAMPING_RX_SOFTWARE) != 0;
}

void Timestamping::AddReceived(Network& network, netstack::Time at, socket::InMessage& message) const {
  const State s = state_.load(std::memory_order_relaxed);
  constexpr uint32_t kSoftware = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
  const bool three = (s.flags & kSoftware) == kSoftware;
  if (!three && s.old == Old::kOff) return;
  const timespec time = Realtime(network, at);
  if (s.old == Old::kMicroseconds) {
    const timeval us{.tv_sec = time.tv_sec, .tv_usec = time.tv_nsec / 1000};
    message.control.push_back(
        {.level = SOL_SOCKET, .type = s.by_new_names ? kTimestampNew : kTimestampOld, .data = OptionBytes(us)});
  } else if (s.old == Old::kNanoseconds) {
    message.control.push_back(
        {.level = SOL_SOCKET, .type = s.by_new_names ? kTimestampNsNew : kTimestampNsOld, .data = OptionBytes(time)});
  }
  if (three) {
    // struct scm_timestamping: the second is unused, the third the hardware's.
    const timespec times[3] = {time, {}, {}};
    message.control.push_back({.level = SOL_SOCKET,
                               .type = s.by_new_names ? kTimestampingNew : kTimestampingOld,
                               .data = OptionBytes(times)});
  }
}

Result<size_t> Timestamping::AddSent(Network& network, int family, const netstack::Stamp& stamp,
                                     socket::InMessage& message) const {
  const size_t length = stamp.frame.size();
  const size_t n = std::min<size_t>(length, message.data.remaining());
  TRY(CopyOutPayload(stamp.frame, n, message.data));
  const State s = state_.load(std::memory_order_relaxed);
  if ((s.flags & SOF_TIMESTAMPING_SOFTWARE) != 0) {
    const timespec times[3] = {Realtime(network, stamp.at), {}, {}};
    message.control.push_back({.level = SOL_SOCKET,
                               .type = s.by_new_names ? kTimestampingNew : kTimestampingOld,
                               .data = OptionBytes(times)});
  }
  const bool v6 = family == AF_INET6;
  std::vector<std::byte> error = OptionBytes(sock_extended_err{.ee_errno = ENOMSG,
                                                               .ee_origin = SO_EE_ORIGIN_TIMESTAMPING,
                                                               .ee_type = 0,
                                                               .ee_code = 0,
                                                               .ee_pad = 0,
                                                               .ee_info = static_cast<uint32_t>(stamp.place),
                                                               .ee_data = stamp.key});
  // Where the frame was from, which Linux tells of IPv4 only by SOF_TIMESTAMPING_OPT_CMSG.
  const bool tell = length > 0 && (v6 || (s.flags & SOF_TIMESTAMPING_OPT_CMSG) != 0);
  socket::AddressBytes from(v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in));
  if (tell) from = FormatAddress(family, v6 ? stamp.source.ToV4Mapped() : stamp.source, 0);
  error.insert(error.end(), from.begin(), from.end());
  message.control.push_back(
      {.level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, .type = v6 ? IPV6_RECVERR : IP_RECVERR, .data = std::move(error)});
  message.flags |= MSG_ERRQUEUE | (length > n ? MSG_TRUNC : 0);
  return n;
}

}  // namespace redoubt::inetsock
