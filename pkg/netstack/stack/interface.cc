#include "pkg/netstack/stack/interface.h"

#include <algorithm>

#include "pkg/log/rate_limit.h"
#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/header/ipv6.h"
#include "pkg/netstack/header/link.h"
#include "pkg/netstack/stack/frame_batch.h"
#include "pkg/netstack/stack/stack.h"

namespace redoubt::netstack {

namespace {
constexpr uint32_t kMinMtu = 68;  // RFC 791
void Count(std::atomic<uint64_t>& counter, uint64_t by = 1) { counter.fetch_add(by, std::memory_order_relaxed); }
}  // namespace

Interface::Interface(Stack& stack, uint32_t index, InterfaceConfig config)
    : stack_(stack),
      index_(index),
      name_(std::move(config.name)),
      link_(std::move(config.link)),
      autoconfigure_(config.autoconfigure),
      duplicate_probes_(config.duplicate_probes),
      mtu_(config.mtu != 0 ? std::min(config.mtu, link_->mtu()) : link_->mtu()),
      flags_(config.flags != 0                     ? config.flags & ~static_cast<uint32_t>(IFF_UP | IFF_RUNNING)
             : (link_->caps() & kCapLoopback) != 0 ? IFF_LOOPBACK
                                                   : IFF_BROADCAST | IFF_MULTICAST),
      mu_(sync::Rank::kNetInterface),
      address_timer_(
          stack.timers(), *this, [](void* self, Time now) { static_cast<Interface*>(self)->AddressTimer(now); }, this),
      neighbours_v4_(stack.clock(), stack.random(), stack.timers(), *this, *this),
      neighbours_v6_(stack.clock(), stack.random(), stack.timers(), *this, *this) {}

Interface::~Interface() = default;

Result<> Interface::SetMtu(uint32_t mtu) {
  if (mtu < kMinMtu || mtu > link_->mtu()) return Err(EINVAL);
  {
    sync::MutexLock lock(mu_);
    bool has_v6 = std::ranges::any_of(addresses_, [](const auto& a) { return a.prefix.address.is_ipv6(); });
    if (has_v6 && mtu < header::Ipv6::kMinMtu) return Err(EINVAL);
    mtu_.store(mtu);
  }
  stack_.address_generation_.fetch_add(1, std::memory_order_acq_rel);  // routes carry the MTU
  stack_.Changed(Stack::Change::kLinkChanged, *this);
  return {};
}

void Interface::SetUp(bool up) {
  if (removed_.load() && up) return;
  std::vector<InterfaceAddress> in_use;
  {
    sync::MutexLock lock(mu_);
    uint32_t before = flags_.load();
    if (((before & IFF_UP) != 0) == up) return;
    flags_.store(up ? before | IFF_UP | IFF_RUNNING : before & ~static_cast<uint32_t>(IFF_UP | IFF_RUNNING));
    if (up) {
      Time now = stack_.Now();
      for (InterfaceAddress& a : addresses_) StartDetectionLocked(a, now);
      RescheduleLocked();
    }
  }
  stack_.address_generation_.fetch_add(1, std::memory_order_acq_rel);
  for (Family family : {Family::kIpv4, Family::kIpv6}) {
    NetworkProtocol* p = stack_.network(family);
    if (p == nullptr) continue;
    if (up) {
      p->OnUp(*this);
    } else {
      p->OnDown(*this);
      neighbours(family).Flush(true);
    }
  }
  if (!up) {
    address_timer_.Cancel();
    // Addresses that a router gave go with the link (RFC 4862 section 5.3: a new one starts anew).
    for (const InterfaceAddress& a : Addresses()) {
      if (a.origin != AddressOrigin::kManual) (void)RemoveAddress(a.prefix.address);
    }
  }
  stack_.Changed(Stack::Change::kLinkChanged, *this);
}

// Sets the state a new address, or an address on an interface that comes up, starts in.
void Interface::StartDetectionLocked(InterfaceAddress& a, Time now) {
  if (a.state == AddressState::kDuplicate) return;
  bool detect = duplicate_probes_ != 0 && (link_->caps() & kCapResolution) != 0;
  if (!detect) {
    if (a.state == AddressState::kTentative) a.state = AddressState::kPreferred;
    a.next_probe = kNever;
    return;
  }
  if (a.prefix.address.is_ipv6()) a.state = AddressState::kTentative;
  a.probes_left = duplicate_probes_;
  a.next_probe = up() ? now : kNever;
}

Result<> Interface::AddAddress(InterfaceAddress address) {
  const Address& a = address.prefix.address;
  if (a.empty() || a.IsUnspecified() || a.IsMulticast() || a.IsLimitedBroadcast() ||
      address.prefix.length > 8 * a.size() || address.prefix.length == 0 || stack_.network(a.family()) == nullptr) {
    return Err(EINVAL);
  }
  if (a.is_ipv6() && mtu() < header::Ipv6::kMinMtu) return Err(EINVAL);
  address.scope = a.IsLoopback() ? Scope::kInterfaceLocal : a.scope();
  address.conflict_reported = false;
  Time now = stack_.Now();
  bool in_use;
  {
    sync::MutexLock lock(mu_);
    if (removed_.load()) return Err(ENODEV);
    if (addresses_.size() >= kMaxAddresses) return Err(ENOSPC);
    for (const InterfaceAddress& other : addresses_) {
      if (other.prefix.address == a) return Err(EEXIST);
    }
    if (address.state != AddressState::kDeprecated) address.state = AddressState::kPreferred;
    bool deprecated = address.state == AddressState::kDeprecated;
    StartDetectionLocked(address, now);
    in_use = address.state != AddressState::kTentative;
    if (in_use && deprecated) address.state = AddressState::kDeprecated;
    addresses_.push_back(address);
    RescheduleLocked();
  }
  if (a.is_ipv6() && (link_->caps() & kCapResolution) != 0) (void)JoinGroup(SolicitedNodeAddress(a));
  if (in_use) AddressInUse(address);
  return {};
}

void Interface::AddressInUse(const InterfaceAddress& address) {
  const Prefix& p = address.prefix;
  stack_.AddLocal(p.address, *this);
  // Told in the order in which Linux tells it: an IPv4 address, then its routes; of IPv6 the other way around.
  if (p.address.is_ipv4()) stack_.Changed(Stack::Change::kAddressAdded, *this, &address);
  // SLAAC's on-link routes come from the prefix's own flag (RFC 4861 section 6.3.4).
  if (p.length < 8 * p.address.size() && address.origin != AddressOrigin::kSlaac && !is_loopback()) {
    (void)stack_.routes().Add({.destination = {p.Network(), p.length},
                               .interface_index = index_,
                               .metric = p.address.is_ipv6() ? 256u : 0u,
                               .source = p.address.is_ipv4() ? p.address : Address{},
                               .protocol = 2});
  }
  if (p.address.is_ipv6()) stack_.Changed(Stack::Change::kAddressAdded, *this, &address);
}

void Interface::AddressGone(const InterfaceAddress& address) {
  const Prefix& p = address.prefix;
  stack_.RemoveLocal(p.address, *this);
  stack_.Changed(Stack::Change::kAddressRemoved, *this, &address);
  if (address.origin != AddressOrigin::kSlaac && !is_loopback()) {
    uint32_t metric = p.address.is_ipv6() ? 256 : 0;
    Prefix network{p.Network(), p.length};
    (void)stack_.routes().Remove({.destination = network, .interface_index = index_, .metric = metric});
    // The connected route stays while another address of the same prefix needs it, with that one as source.
    for (const InterfaceAddress& other : Addresses()) {
      if (other.prefix.length != p.length || other.prefix.Network() != network.address ||
          other.origin == AddressOrigin::kSlaac || other.state == AddressState::kTentative ||
          other.state == AddressState::kDuplicate) {
        continue;
      }
      (void)stack_.routes().Add({.destination = network,
                                 .interface_index = index_,
                                 .metric = metric,
                                 .source = p.address.is_ipv4() ? other.prefix.address : Address{},
                                 .protocol = 2});
      break;
    }
  }
}

Result<> Interface::RemoveAddress(const Address& address) {
  InterfaceAddress removed;
  {
    sync::MutexLock lock(mu_);
    auto it = std::ranges::find_if(addresses_, [&](const auto& a) { return a.prefix.address == address; });
    if (it == addresses_.end()) return Err(EADDRNOTAVAIL);
    removed = *it;
    addresses_.erase(it);
  }
  if (address.is_ipv6() && (link_->caps() & kCapResolution) != 0) (void)LeaveGroup(SolicitedNodeAddress(address));
  AddressGone(removed);
  return {};
}

std::vector<InterfaceAddress> Interface::Addresses() const {
  sync::MutexLock lock(mu_);
  return addresses_;
}

std::optional<InterfaceAddress> Interface::FindAddress(const Address& address) const {
  sync::MutexLock lock(mu_);
  for (const InterfaceAddress& a : addresses_) {
    if (a.prefix.address == address) return a;
  }
  return std::nullopt;
}

bool Interface::IsBroadcast(const Address& address) const {
  if (!address.is_ipv4()) return false;
  if (address.IsLimitedBroadcast()) return true;
  if (is_loopback()) return false;
  sync::MutexLock lock(mu_);
  return std::ranges::any_of(addresses_, [&](const auto& a) {
    Address broadcast = a.prefix.Broadcast();
    return !broadcast.empty() && broadcast == address;
  });
}

Result<> Interface::SetLifetimes(const Address& address, Time preferred_until, Time valid_until) {
  Time now = stack_.Now();
  sync::MutexLock lock(mu_);
  for (InterfaceAddress& a : addresses_) {
    if (a.prefix.address != address) continue;
    a.preferred_until = preferred_until;
    a.valid_until = valid_until;
    if (a.state == AddressState::kDeprecated && preferred_until > now) a.state = AddressState::kPreferred;
    RescheduleLocked();
    return {};
  }
  return Err(EADDRNOTAVAIL);
}

void Interface::ReportDuplicate(const Address& address, const LinkAddress& by) {
  {
    sync::MutexLock lock(mu_);
    auto it = std::ranges::find_if(addresses_, [&](const auto& a) { return a.prefix.address == address; });
    if (it == addresses_.end()) return;
    if (it->state == AddressState::kTentative) {
      it->state = AddressState::kDuplicate;
      it->next_probe = kNever;
    }
    if (it->conflict_reported) return;
    it->conflict_reported = true;
  }
  LOG_WARNING_LIMITED("netstack: {}: address {} is also in use by {}", name_, address.ToString(), by.ToString());
}

void Interface::RescheduleLocked() {
  Time next = kNever;
  for (const InterfaceAddress& a : addresses_) {
    next =
        std::min({next, a.next_probe, a.valid_until, a.state == AddressState::kPreferred ? a.preferred_until : kNever});
  }
  if (next != kNever && up()) address_timer_.Schedule(next);
}

void Interface::AddressTimer(Time now) {
  std::vector<Address> expired;
  std::vector<Address> probe;
  std::vector<InterfaceAddress> confirmed;
  bool changed = false;
  {
    sync::MutexLock lock(mu_);
    if (!up()) return;
    for (InterfaceAddress& a : addresses_) {
      if (a.valid_until <= now) {
        expired.push_back(a.prefix.address);
        continue;
      }
      if (a.state == AddressState::kPreferred && a.preferred_until <= now) {
        a.state = AddressState::kDeprecated;
        changed = true;
      }
      if (a.next_probe > now) continue;
      if (a.probes_left > 0) {
        a.probes_left--;
        a.next_probe = now + NeighbourTable::kRetransmitTime;
        probe.push_back(a.prefix.address);
      } else {
        a.next_probe = kNever;
        bool tentative = a.state == AddressState::kTentative;
        if (tentative) a.state = a.preferred_until <= now ? AddressState::kDeprecated : AddressState::kPreferred;
        if (tentative || a.prefix.address.is_ipv4()) confirmed.push_back(a);
      }
    }
    RescheduleLocked();
  }
  if (changed) stack_.address_generation_.fetch_add(1, std::memory_order_acq_rel);
  for (const Address& a : expired) (void)RemoveAddress(a);
  for (const Address& a : probe) stack_.network(a.family())->resolver().ProbeDuplicate(*this, a);
  for (const InterfaceAddress& a : confirmed) {
    if (a.prefix.address.is_ipv6()) AddressInUse(a);
    stack_.network(a.prefix.address.family())->resolver().Announce(*this, a.prefix.address);
  }
}

Result<> Interface::JoinGroup(const Address& group) {
  if (!group.IsMulticast()) return Err(EINVAL);
  {
    sync::MutexLock lock(mu_);
    for (Group& g : groups_) {
      if (g.address == group) {
        g.members++;
        return {};
      }
    }
    if (groups_.size() >= kMaxGroups) return Err(ENOBUFS);
    groups_.push_back({group, 1});
    group_count_.store(static_cast<uint32_t>(groups_.size()), std::memory_order_release);
  }
  if (NetworkProtocol* p = stack_.network(group.family())) p->OnGroupJoined(*this, group);
  return {};
}

Result<> Interface::LeaveGroup(const Address& group) {
  {
    sync::MutexLock lock(mu_);
    auto it = std::ranges::find_if(groups_, [&](const Group& g) { return g.address == group; });
    if (it == groups_.end()) return Err(EADDRNOTAVAIL);
    if (--it->members > 0) return {};
    groups_.erase(it);
    group_count_.store(static_cast<uint32_t>(groups_.size()), std::memory_order_release);
  }
  if (NetworkProtocol* p = stack_.network(group.family())) p->OnGroupLeft(*this, group);
  return {};
}

bool Interface::IsMember(const Address& group) const {
  // Everybody is a member of these (RFC 1112 section 4, RFC 4291 section 2.8).
  if (group == kAllSystemsV4 || group == kAllNodesV6) return true;
  if (group_count_.load(std::memory_order_acquire) == 0) return false;
  sync::MutexLock lock(mu_);
  return std::ranges::any_of(groups_, [&](const Group& g) { return g.address == group; });
}

std::vector<Address> Interface::Groups(Family family) const {
  sync::MutexLock lock(mu_);
  std::vector<Address> r;
  for (const Group& g : groups_) {
    if (g.address.family() == family) r.push_back(g.address);
  }
  return r;
}

Result<> Interface::Send(const Address& next_hop, PacketPtr packet) {
  if (!up()) return Err(ENETDOWN);
  if ((link_->caps() & kCapResolution) == 0) return SendTo({}, std::move(packet));
  if (next_hop.IsMulticast()) return SendTo(MulticastLinkAddress(next_hop), std::move(packet));
  if (next_hop.is_ipv4() && IsBroadcast(next_hop)) return SendTo(kBroadcastLinkAddress, std::move(packet));
  neighbours(next_hop.family()).Send(next_hop, std::move(packet));
  return {};
}

Result<> Interface::SendTo(const LinkAddress& to, PacketPtr packet, const PacketTap* sender) {
  size_t size = link_->header_size();
  if (size != 0) {
    header::Ethernet ethernet{.destination = to, .source = link_address(), .ethertype = packet->ethertype};
    ethernet.Write({packet->data.Prepend(size), size});
    packet->link_destination = to;
    packet->link_source = ethernet.source;
  }
  return Emit(std::move(packet), size, sender);
}

Result<> Interface::SendFrame(PacketPtr frame, const PacketTap* sender) {
  if (link_->header_size() != 0) {
    std::span<const std::byte> front = frame->data.PullUp(header::Ethernet::kSize);
    std::optional<header::Ethernet> ethernet = header::Ethernet::Parse(front);
    if (!ethernet) return Err(EINVAL);
    frame->ethertype = ethernet->ethertype;
    frame->link_destination = ethernet->destination;
    frame->link_source = ethernet->source;
  }
  return Emit(std::move(frame), link_->header_size(), sender);
}

Result<> Interface::Emit(PacketPtr frame, size_t link_header_size, const PacketTap* sender) {
  if (!up()) return Err(ENETDOWN);
  Offload& offload = frame->offload;
  if (offload.gso != GsoKind::kNone && (link_->caps() & kCapTcpGso) == 0) {
    // A forwarded super-segment: links that receive them are attached only beside links that take them.
    Count(stats_.tx_errors);
    return Err(EMSGSIZE);
  }
  if (offload.checksum == ChecksumState::kPartial && (link_->caps() & kCapTxChecksum) == 0) {
    size_t transport = link_header_size + frame->transport_offset;
    uint16_t checksum = static_cast<uint16_t>(~Sum(frame->data, transport));
    std::span<std::byte> front = frame->data.MakeWritable(transport + offload.checksum_offset + 2u);
    if (front.empty()) return Err(EINVAL);
    header::Store16(front, transport + offload.checksum_offset, checksum);
    offload.checksum = ChecksumState::kComplete;
  }
  const size_t bytes = frame->data.size();
  if (frame->stamp.receiver != nullptr) {
    // There is no queue between the two places.
    const StampRequest stamp = std::move(frame->stamp);
    frame->interface_index = index_;
    for (StampPlace place : {StampPlace::kScheduled, StampPlace::kSent}) {
      if (stamp.Has(place)) stamp.receiver->Stamped(place, stamp.key, *frame, link_header_size);
    }
    frame->stamp = {};
  }
  if (stack_.has_frame_taps()) {
    PacketType type = std::exchange(frame->type, PacketType::kOutgoing);
    Interface* from = std::exchange(frame->interface, this);
    frame->interface_index = index_;
    stack_.TapFrame(*frame, sender);
    frame->type = type;
    frame->interface = from;
  }
  Count(stats_.tx_bytes, bytes);
  if (!is_loopback() && FrameBatch::Take(*this, frame)) return {};
  PacketList list;
  list.PushBack(std::move(frame));
  if (link_->Write(std::move(list)) == 0) {
    Count(stats_.tx_dropped);
    return Err(ENOBUFS);
  }
  Count(stats_.tx_packets);
  return {};
}

void Interface::WriteFrames(PacketList frames, size_t count) {
  const size_t sent = link_->Write(std::move(frames));
  Count(stats_.tx_packets, sent);
  if (sent < count) Count(stats_.tx_dropped, count - sent);
}

void Interface::DeliverFrames(PacketList frames) {
  PacketPtr first = frames.PopFront();
  if (first == nullptr) return;
  if (frames.empty()) {
    // One alone has nothing to be put off for.
    DeliverFrame(std::move(first));
    return;
  }
  FrameBatch batch;
  DeliverFrame(std::move(first));
  while (PacketPtr p = frames.PopFront()) DeliverFrame(std::move(p));
}

void Interface::DeliverFrame(PacketPtr frame) {
  Count(stats_.rx_packets);
  Count(stats_.rx_bytes, frame->data.size());
  if (!up()) {
    Count(stats_.rx_dropped);
    return;
  }
  frame->interface = this;
  frame->interface_index = index_;
  frame->received = stack_.Now();
  size_t link_header = link_->header_size();
  if (link_header != 0) {
    std::optional<header::Ethernet> ethernet = header::Ethernet::Parse(frame->data.PullUp(header::Ethernet::kSize));
    if (!ethernet || ethernet->source.IsMulticast()) {
      Count(stats_.rx_errors);
      return;
    }
    frame->ethertype = ethernet->ethertype;
    frame->link_source = ethernet->source;
    frame->link_destination = ethernet->destination;
    if (ethernet->destination.IsBroadcast()) {
      frame->type = PacketType::kBroadcast;
    } else if (ethernet->destination.IsMulticast()) {
      frame->type = PacketType::kMulticast;
      Count(stats_.rx_multicast);
    } else if (ethernet->destination != link_address()) {
      frame->type = PacketType::kOtherHost;
      if (promiscuity() == 0) return;
    }
  }
  if (stack_.has_frame_taps()) stack_.TapFrame(*frame, nullptr);
  if (frame->type == PacketType::kOtherHost) return;
  frame->data.TrimFront(link_header);
  stack_.DeliverFrame(*this, std::move(frame));
}

void Interface::SendSolicitation(const Address& target, const LinkAddress* link) {
  stack_.network(target.family())->resolver().Solicit(*this, target, link);
}

void Interface::SendResolved(const LinkAddress& to, PacketPtr packet) { (void)SendTo(to, std::move(packet)); }

void Interface::Unresolved(PacketList packets) {
  while (PacketPtr p = packets.PopFront()) {
    NetworkProtocol* protocol = stack_.network(p->destination.family());
    if (protocol != nullptr) protocol->SendError(*this, *p, NetworkProtocol::Failure::kHostUnreachable);
  }
}

bool Interface::WantsChanges() const { return stack_.neighbour_hook_ != nullptr; }

void Interface::Changed(bool removed, const NeighbourInfo& neighbour) {
  if (stack_.neighbour_hook_) stack_.neighbour_hook_(removed, *this, neighbour);
}

void Interface::Detach() {
  removed_.store(true);
  SetUp(false);
  link_->Attach(nullptr);
  for (const InterfaceAddress& a : Addresses()) (void)RemoveAddress(a.prefix.address);
  neighbours_v4_.Flush(false);
  neighbours_v6_.Flush(false);
  address_timer_.Cancel();
}

}  // namespace redoubt::netstack
