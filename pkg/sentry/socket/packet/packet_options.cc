// Options of packet(7).
#include <linux/if_ether.h>

#include <climits>
#include <cstring>

#include "pkg/netstack/raw/fanout.h"
#include "pkg/sentry/socket/packet/packet_socket.h"

namespace redoubt::packetsock {

using netstack::LinkAddress;
using netstack::PacketEndpoint;
using socket::Caller;
using socket::OptionBytes;

// PACKET_ADD_MEMBERSHIP, PACKET_DROP_MEMBERSHIP.
Result<> PacketSocket::SetMembership(int name, std::span<const std::byte> value) {
  packet_mreq request;
  if (value.size() < sizeof(request)) return Err(EINVAL);
  std::memcpy(&request, value.data(), sizeof(request));
  // Of longer addresses than there are, more of them would follow.
  if (value.size() < offsetof(packet_mreq, mr_address) + request.mr_alen) return Err(EINVAL);
  const bool add = name == PACKET_ADD_MEMBERSHIP;
  if (request.mr_ifindex <= 0) return add ? Result<>(Err(ENODEV)) : Result<>();
  const auto index = static_cast<uint32_t>(request.mr_ifindex);
  if (add) {
    if (!network_.stack().FindInterface(index)) return Err(ENODEV);
    if (request.mr_alen > ETH_ALEN) return Err(EINVAL);
  }
  LinkAddress address;
  std::memcpy(address.bytes.data(), request.mr_address, std::min<size_t>(request.mr_alen, ETH_ALEN));
  PacketEndpoint::Wish wish;
  switch (request.mr_type) {
    case PACKET_MR_MULTICAST:
    case PACKET_MR_UNICAST:
      if (add && request.mr_alen != ETH_ALEN) return Err(EINVAL);
      wish = request.mr_type == PACKET_MR_UNICAST ? PacketEndpoint::Wish::kUnicast : PacketEndpoint::Wish::kMulticast;
      break;
    case PACKET_MR_PROMISC:
      wish = PacketEndpoint::Wish::kPromiscuous;
      break;
    case PACKET_MR_ALLMULTI:
      wish = PacketEndpoint::Wish::kAllMulticast;
      break;
    default:
      return Err(EINVAL);
  }
  if (add) return endpoint_->AddMembership(index, wish, address);
  endpoint_->DropMembership(index, wish, address);
  return {};
}

// PACKET_FANOUT: the group's number, and above it how its members share. struct fanout_args is that and a number of
// members, which is bounded here anyway.
Result<> PacketSocket::SetFanout(std::span<const std::byte> value) {
  constexpr int kIgnoreOutgoing = 0x4000;  // PACKET_FANOUT_FLAG_IGNORE_OUTGOING
  constexpr size_t kArguments = 8;
  // Of a sandbox there is one network; each socket takes itself out.
  static netstack::FanoutGroups* const groups = new netstack::FanoutGroups();
  if (value.size() != sizeof(int) && value.size() != kArguments) return Err(EINVAL);
  const int n = TRY(socket::IntOption(value));
  const int how = n >> 16 & 0xffff;
  netstack::FanoutRule rule{.ignore_outgoing = (how & kIgnoreOutgoing) != 0};
  switch (how & ~kIgnoreOutgoing) {
    case PACKET_FANOUT_HASH:
      rule.kind = netstack::FanoutKind::kHash;
      break;
    case PACKET_FANOUT_LB:
      rule.kind = netstack::FanoutKind::kLoadBalance;
      break;
    case PACKET_FANOUT_CPU:
      rule.kind = netstack::FanoutKind::kCpu;
      break;
    default:
      return Err(EINVAL);
  }
  TRY(endpoint_->JoinFanout(*groups, static_cast<uint16_t>(n & 0xffff), rule));
  fanout_.store(n, std::memory_order_relaxed);
  return {};
}

// PACKET_VERSION, PACKET_RESERVE: before there is a ring. There is no TPACKET_V3, upon whose refusal libpcap takes V2.
Result<> PacketSocket::SetRingShape(int name, int value) {
  sync::MutexLock lock(ring_mu_);
  if (name == PACKET_VERSION) {
    if (value != TPACKET_V1 && value != TPACKET_V2) return Err(EINVAL);
    if (ring_) return Err(EBUSY);
    version_ = value;
    return {};
  }
  if (value < 0) return Err(EINVAL);
  if (ring_) return Err(EBUSY);
  reserve_ = static_cast<uint32_t>(value);
  return {};
}

// PACKET_RX_RING: no blocks take it away.
Result<> PacketSocket::SetRing(std::span<const std::byte> value) {
  tpacket_req request;
  if (value.size() < sizeof(request)) return Err(EINVAL);
  std::memcpy(&request, value.data(), sizeof(request));
  fiber::MutexLock one(set_ring_mu_);
  int version;
  uint32_t reserve;
  RefPtr<PacketRing> before;
  {
    sync::MutexLock lock(ring_mu_);
    version = version_;
    reserve = reserve_;
    before = ring_;
  }
  if (before && before->mapped()) return Err(EBUSY);
  RefPtr<PacketRing> made;
  if (request.tp_block_nr == 0) {
    if (request.tp_frame_nr != 0) return Err(EINVAL);
  } else {
    if (before) return Err(EBUSY);
    made = TRY(PacketRing::Create(memory_file_, request, version, reserve, endpoint_->kind()));
  }
  {
    sync::MutexLock lock(ring_mu_);
    // What the frames are laid out by must be what the guest is told.
    if (made && (version != version_ || reserve != reserve_)) return Err(EBUSY);
    ring_ = made;
  }
  endpoint_->SetSink(made ? PacketRing::MakeSink(made) : nullptr);
  return {};
}

Result<> PacketSocket::SetOption(const Caller& caller, int level, int name, std::span<const std::byte> value) {
  if (level == SOL_SOCKET) return Socket::SetOption(caller, level, name, value);
  if (level != SOL_PACKET) return Err(ENOPROTOOPT);
  switch (name) {
    case PACKET_ADD_MEMBERSHIP:
    case PACKET_DROP_MEMBERSHIP:
      return SetMembership(name, value);
    case PACKET_RX_RING:
      return SetRing(value);
    case PACKET_FANOUT:
      return SetFanout(value);
    case PACKET_AUXDATA:
    case PACKET_ORIGDEV:
    case PACKET_QDISC_BYPASS:
    case PACKET_IGNORE_OUTGOING:
    case PACKET_VERSION:
    case PACKET_RESERVE:
      break;
    default:
      return Err(ENOPROTOOPT);
  }
  const int n = TRY(socket::IntOption(value));
  switch (name) {
    case PACKET_AUXDATA:
      auxdata_.store(n != 0, std::memory_order_relaxed);
      return {};
    // There are no devices on top of others, and no queueing discipline: neither makes a difference.
    case PACKET_ORIGDEV:
      original_device_.store(n != 0, std::memory_order_relaxed);
      return {};
    case PACKET_QDISC_BYPASS:
      bypass_.store(n != 0, std::memory_order_relaxed);
      return {};
    case PACKET_IGNORE_OUTGOING:
      if (n != 0 && n != 1) return Err(EINVAL);
      endpoint_->IgnoreOutgoing(n != 0);
      return {};
    default:
      return SetRingShape(name, n);
  }
}

Result<std::vector<std::byte>> PacketSocket::GetOption(const Caller& caller, int level, int name) {
  if (level == SOL_SOCKET) return Socket::GetOption(caller, level, name);
  if (level != SOL_PACKET) return Err(ENOPROTOOPT);
  switch (name) {
    case PACKET_STATISTICS: {
      const PacketEndpoint::Statistics s = endpoint_->TakeStatistics();
      return OptionBytes(tpacket_stats{.tp_packets = s.received + s.dropped, .tp_drops = s.dropped});
    }
    case PACKET_FANOUT:
      return OptionBytes<int>(fanout_.load(std::memory_order_relaxed));
    case PACKET_AUXDATA:
      return OptionBytes<int>(auxdata_.load(std::memory_order_relaxed));
    case PACKET_ORIGDEV:
      return OptionBytes<int>(original_device_.load(std::memory_order_relaxed));
    case PACKET_QDISC_BYPASS:
      return OptionBytes<int>(bypass_.load(std::memory_order_relaxed));
    case PACKET_IGNORE_OUTGOING:
      return OptionBytes<int>(endpoint_->ignores_outgoing());
    case PACKET_VERSION: {
      sync::MutexLock lock(ring_mu_);
      return OptionBytes<int>(version_);
    }
    case PACKET_RESERVE: {
      sync::MutexLock lock(ring_mu_);
      return OptionBytes<int>(static_cast<int>(reserve_));
    }
    default:
      return Err(ENOPROTOOPT);
  }
}

// PACKET_HDRLEN: how long the header of a frame is in the version that was asked about.
Result<std::vector<std::byte>> PacketSocket::AnswerOption(const Caller& caller, int level, int name,
                                                          std::span<const std::byte> given) {
  switch (TRY(socket::IntOption(given))) {
    case TPACKET_V1:
      return OptionBytes<int>(sizeof(tpacket_hdr));
    case TPACKET_V2:
      return OptionBytes<int>(sizeof(tpacket2_hdr));
    default:
      return Err(EINVAL);
  }
}

}  // namespace redoubt::packetsock
