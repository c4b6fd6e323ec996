#include "pkg/netstack/stack/stack.h"

#include <algorithm>

#include "pkg/log/log.h"
#include "pkg/netstack/header/bytes.h"
#include "pkg/netstack/header/link.h"

namespace redoubt::netstack {

Stack::Stack(Clock& clock, RandomSource& random)
    : clock_(clock),
      random_(random),
      ports_(random),
      mu_(sync::Rank::kNetStack),
      local_mu_(sync::Rank::kNetLocalAddresses),
      taps_mu_(sync::Rank::kNetStack) {}

Stack::~Stack() { Close(); }

void Stack::Close() {
  std::vector<RefPtr<Interface>> interfaces;
  {
    sync::MutexLock lock(mu_);
    interfaces.swap(interfaces_);
    loopback_.store(nullptr);
  }
  for (auto& i : interfaces) i->Detach();
  for (auto& t : transports_) {
    if (t != nullptr) t->Close();
  }
  std::vector<RawTap> raw;
  std::vector<FrameTap> frame;
  {
    sync::MutexLock lock(taps_mu_);
    raw.swap(raw_taps_);
    frame.swap(frame_taps_);
    raw_tap_count_ = frame_tap_count_ = 0;
  }
}

void Stack::RegisterHandler(std::unique_ptr<PacketHandler> handler) { handlers_.push_back(std::move(handler)); }

void Stack::RegisterNetwork(std::unique_ptr<NetworkProtocol> protocol) {
  (protocol->family() == Family::kIpv4 ? ipv4_ : ipv6_) = protocol.get();
  // The commonest first.
  handlers_.insert(handlers_.begin(), std::move(protocol));
}

void Stack::RegisterTransport(std::unique_ptr<TransportProtocol> protocol) {
  std::unique_ptr<TransportProtocol>& slot = transports_[protocol->number()];
  CHECK(slot == nullptr, "a transport is registered twice");
  slot = std::move(protocol);
}

Result<RefPtr<Interface>> Stack::AddInterface(InterfaceConfig config) {
  const std::string& name = config.name;
  if (name.empty() || name.size() >= IFNAMSIZ || name == "." || name == ".." ||
      std::ranges::any_of(name, [](unsigned char c) { return c == '/' || c == ':' || c <= ' ' || c == 0x7f; })) {
    return Err(EINVAL);
  }
  constexpr size_t kMaxInterfaces = 1024;
  RefPtr<Interface> interface;
  {
    sync::MutexLock lock(mu_);
    if (interfaces_.size() >= kMaxInterfaces) return Err(ENOSPC);
    const uint32_t index = config.index != 0 ? config.index : next_index_;
    for (auto& i : interfaces_) {
      if (i->name() == name || i->index() == index) return Err(EEXIST);
    }
    next_index_ = std::max(next_index_, index + 1);
    interface = MakeRef<Interface>(*this, index, std::move(config));
    interfaces_.push_back(interface);
    if (interface->is_loopback() && loopback_.load() == nullptr) loopback_.store(interface.get());
  }
  interface->link().Attach(interface.get());
  Changed(Change::kLinkAdded, *interface);
  return interface;
}

Result<> Stack::RemoveInterface(uint32_t index) {
  RefPtr<Interface> interface = FindInterface(index);
  if (interface == nullptr) return Err(ENODEV);
  if (loopback_.load() == interface.get()) return Err(EPERM);  // as Linux's lo
  interface->Detach();
  {
    sync::MutexLock lock(mu_);
    std::erase(interfaces_, interface);
  }
  routes_.RemoveInterface(index);
  Changed(Change::kLinkRemoved, *interface);
  return {};
}

RefPtr<Interface> Stack::FindInterface(uint32_t index) const {
  sync::MutexLock lock(mu_);
  return RefPtr<Interface>(FindLocked(index));
}

RefPtr<Interface> Stack::FindInterface(std::string_view name) const {
  sync::MutexLock lock(mu_);
  for (auto& i : interfaces_) {
    if (i->name() == name) return i;
  }
  return nullptr;
}

std::vector<RefPtr<Interface>> Stack::Interfaces() const {
  sync::MutexLock lock(mu_);
  return interfaces_;
}

Interface* Stack::FindLocked(uint32_t index) const {
  for (auto& i : interfaces_) {
    if (i->index() == index) return i.get();
  }
  return nullptr;
}

bool Stack::IsLocal(const Address& address) const {
  if (address.is_ipv4() && address.IsLoopback()) {
    Interface* lo = loopback_.load(std::memory_order_acquire);
    return lo != nullptr && lo->up();
  }
  sync::MutexLock lock(local_mu_);
  return local_.contains(address);
}

void Stack::AddLocal(const Address& address, Interface& interface) {
  {
    sync::MutexLock lock(local_mu_);
    local_.emplace(address, &interface);
  }
  address_generation_.fetch_add(1, std::memory_order_acq_rel);
}

void Stack::RemoveLocal(const Address& address, Interface& interface) {
  {
    sync::MutexLock lock(local_mu_);
    auto [begin, end] = local_.equal_range(address);
    for (auto it = begin; it != end; ++it) {
      if (it->second == &interface) {
        local_.erase(it);
        break;
      }
    }
  }
  address_generation_.fetch_add(1, std::memory_order_acq_rel);
}

Interface* Stack::OwnerOfLocked(const Address& address) const {
  sync::MutexLock lock(local_mu_);
  auto it = local_.find(address);
  return it == local_.end() ? nullptr : it->second;
}

Address Stack::ChooseSourceLocked(const Address& remote, const Interface& out) const {
  std::vector<SourceCandidate> candidates;
  for (auto& i : interfaces_) {
    // A link-local address means nothing on another link; other addresses of the host may serve (the weak model).
    for (const InterfaceAddress& a : i->Addresses()) {
      if (a.state == AddressState::kTentative || a.state == AddressState::kDuplicate) continue;
      if (i.get() != &out && a.prefix.address.scope() != Scope::kGlobal) continue;
      candidates.push_back({.prefix = a.prefix,
                            .deprecated = a.state == AddressState::kDeprecated,
                            .on_outgoing_interface = i.get() == &out});
    }
  }
  int best = SelectSource(remote, candidates);
  return best < 0 ? Address::Any(remote.family()) : candidates[static_cast<size_t>(best)].prefix.address;
}

Result<Route> Stack::FindRoute(const RouteRequest& request) {
  uint32_t generation = routing_generation();  // before the look-up: a change during it makes the route stale
  Address remote = request.remote;
  if (remote.empty() || network(remote.family()) == nullptr) return Err(EINVAL);
  if (!request.local.empty() && request.local.family() != remote.family()) return Err(EINVAL);
  if (remote.IsUnspecified()) {
    // connect(2) to INADDR_ANY means this host.
    remote =
        request.local.empty() || request.local.IsUnspecified() ? Address::Loopback(remote.family()) : request.local;
  }
  bool bound = !request.local.empty() && !request.local.IsUnspecified();
  if (bound && !request.local.IsMulticast() && !request.foreign.may_send(remote.family()) && !IsLocal(request.local)) {
    return Err(request.foreign.freebind ? ENETUNREACH : EADDRNOTAVAIL);
  }
  bool local_remote = IsLocal(remote);

  Route route;
  route.stack_ = this;
  route.remote_ = route.next_hop_ = remote;
  route.generation_ = generation;
  sync::MutexLock lock(mu_);
  Interface* out = nullptr;
  Address preferred;
  uint32_t mtu = 0;
  if (local_remote) {
    out = loopback_.load(std::memory_order_acquire);
    if (out == nullptr || !out->up()) return Err(ENETUNREACH);
    preferred = remote;
  } else {
    Interface* wanted = nullptr;
    if (request.interface_index != 0) {
      wanted = FindLocked(request.interface_index);
      if (wanted == nullptr) return Err(ENODEV);
      if (!wanted->up()) return Err(ENETDOWN);
    } else if (bound && (remote.IsMulticast() || remote.IsLimitedBroadcast() || remote.IsLinkLocal())) {
      wanted = OwnerOfLocked(request.local);
    }
    std::optional<RouteEntry> entry = routes_.Find(remote, [&](const RouteEntry& e) {
      mu_.AssertHeld();
      if (e.type != RouteType::kUnicast) return wanted == nullptr;
      if (wanted != nullptr) return e.interface_index == wanted->index();
      Interface* i = FindLocked(e.interface_index);
      return i != nullptr && i->up();
    });
    if (entry && entry->type != RouteType::kUnicast) {
      return Err(entry->type == RouteType::kUnreachable ? EHOSTUNREACH
                 : entry->type == RouteType::kProhibit  ? EACCES
                                                        : EINVAL);
    }
    bool on_link = remote.IsMulticast() || remote.IsLimitedBroadcast();
    if (wanted != nullptr) {
      out = wanted;
    } else if (entry) {
      out = FindLocked(entry->interface_index);
    } else if (on_link || remote.IsLinkLocal()) {
      // No route and no wish: the first interface that can.
      for (auto& i : interfaces_) {
        if (i->up() && !i->is_loopback()) {
          out = i.get();
          break;
        }
      }
    }
    if (out == nullptr) return Err(ENETUNREACH);
    if (entry && !on_link) {
      if (!entry->gateway.empty()) route.next_hop_ = entry->gateway;
      preferred = entry->source;
      mtu = entry->mtu;
    }
    if (remote.is_ipv4() && out->IsBroadcast(remote)) {
      if (!request.broadcast_allowed) return Err(EACCES);
      route.broadcast_ = true;
    }
  }
  if (request.forwarding) {
    route.local_ = Address::Any(remote.family());
  } else if (bound) {
    route.local_ = request.local;
  } else if (!preferred.empty() && (local_remote || OwnerOfLocked(preferred) != nullptr)) {
    route.local_ = preferred;
  } else {
    route.local_ = ChooseSourceLocked(remote, *out);
  }
  route.interface_ = RefPtr<Interface>(out);
  route.interface_mtu_ = mtu != 0 ? std::min(mtu, out->mtu()) : out->mtu();
  route.caps_ = out->link().caps();
  route.gso_max_ = (route.caps_ & kCapTcpGso) != 0 ? out->link().gso_max() : 0;
  return route;
}

void Stack::DeliverFrame(Interface& interface, PacketPtr packet) {
  for (auto& h : handlers_) {
    if (h->ethertype() == packet->ethertype) {
      h->HandlePacket(interface, std::move(packet));
      return;
    }
  }
  interface.stats().rx_dropped.fetch_add(1, std::memory_order_relaxed);
}

void Stack::DeliverTransport(Interface& interface, PacketPtr packet) {
  IpStats& stats = ip_stats(packet->destination.family());
  bool taken = TapRaw(*packet);
  TransportProtocol* transport = transports_[packet->protocol].get();
  NetworkProtocol* network = this->network(packet->destination.family());
  if (transport == nullptr) {
    if (taken) {
      stats.in_delivers.fetch_add(1, std::memory_order_relaxed);
    } else {
      stats.in_unknown_protocols.fetch_add(1, std::memory_order_relaxed);
      network->SendError(interface, *packet, NetworkProtocol::Failure::kProtocolUnreachable);
    }
    return;
  }
  std::array<std::byte, 4> ports;
  if (packet->transport_length() < transport->minimum_header_size() ||
      packet->data.CopyOut(packet->transport_offset, ports) != ports.size()) {
    stats.in_transport_errors.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  stats.in_delivers.fetch_add(1, std::memory_order_relaxed);
  FourTuple id{.local = packet->destination,
               .remote = packet->source,
               .local_port = header::Load16(ports, 2),
               .remote_port = header::Load16(ports, 0)};
  switch (transport->HandlePacket(*packet, id)) {
    case Disposition::kHandled:
      break;
    case Disposition::kMalformed:
      stats.in_transport_errors.fetch_add(1, std::memory_order_relaxed);
      break;
    case Disposition::kPortUnreachable:
      network->SendError(interface, *packet, NetworkProtocol::Failure::kPortUnreachable);
      break;
  }
}

bool Stack::TapRaw(const Packet& packet) {
  if (raw_tap_count_.load(std::memory_order_acquire) == 0) return false;
  std::vector<RefPtr<PacketTap>> taps;
  {
    sync::MutexLock lock(taps_mu_);
    for (const RawTap& t : raw_taps_) {
      if (t.family == packet.destination.family() && t.protocol == packet.protocol) taps.push_back(t.tap);
    }
  }
  for (auto& t : taps) t->HandleTapped(packet);
  return !taps.empty();
}

void Stack::DeliverError(uint8_t protocol, const Address& local, const Address& remote, const TransportError& error,
                         std::span<const std::byte> quoted) {
  TransportProtocol* transport = transports_[protocol].get();
  if (transport == nullptr || quoted.size() < 8) return;
  FourTuple id{.local = local,
               .remote = remote,
               .local_port = header::Load16(quoted, 0),
               .remote_port = header::Load16(quoted, 2)};
  transport->HandleError(id, error, quoted);
}

void Stack::AddRawTap(Family family, uint8_t protocol, RefPtr<PacketTap> tap) {
  sync::MutexLock lock(taps_mu_);
  raw_taps_.push_back({family, protocol, std::move(tap)});
  raw_tap_count_.store(static_cast<uint32_t>(raw_taps_.size()), std::memory_order_release);
}

void Stack::RemoveRawTap(const PacketTap& tap) {
  std::vector<RawTap> removed;  // destroyed after the lock
  sync::MutexLock lock(taps_mu_);
  for (auto it = raw_taps_.begin(); it != raw_taps_.end();) {
    if (it->tap.get() == &tap) {
      removed.push_back(std::move(*it));
      it = raw_taps_.erase(it);
    } else {
      ++it;
    }
  }
  raw_tap_count_.store(static_cast<uint32_t>(raw_taps_.size()), std::memory_order_release);
}

void Stack::AddFrameTap(uint16_t ethertype, uint32_t interface_index, RefPtr<PacketTap> tap) {
  sync::MutexLock lock(taps_mu_);
  frame_taps_.push_back({ethertype, interface_index, std::move(tap)});
  frame_tap_count_.store(static_cast<uint32_t>(frame_taps_.size()), std::memory_order_release);
}

void Stack::RemoveFrameTap(const PacketTap& tap) {
  std::vector<FrameTap> removed;
  sync::MutexLock lock(taps_mu_);
  for (auto it = frame_taps_.begin(); it != frame_taps_.end();) {
    if (it->tap.get() == &tap) {
      removed.push_back(std::move(*it));
      it = frame_taps_.erase(it);
    } else {
      ++it;
    }
  }
  frame_tap_count_.store(static_cast<uint32_t>(frame_taps_.size()), std::memory_order_release);
}

void Stack::TapFrame(const Packet& packet, const PacketTap* except) {
  std::vector<RefPtr<PacketTap>> taps;
  {
    sync::MutexLock lock(taps_mu_);
    for (const FrameTap& t : frame_taps_) {
      if (t.tap.get() == except) continue;
      bool all = t.ethertype == header::kEtherTypeAll;
      // Taps for one EtherType do not see what this host sends (packet(7), as Linux delivers them).
      if ((all || (t.ethertype == packet.ethertype && packet.type != PacketType::kOutgoing)) &&
          (t.interface_index == 0 || t.interface_index == packet.interface_index)) {
        taps.push_back(t.tap);
      }
    }
  }
  for (auto& t : taps) t->HandleTapped(packet);
}

void Stack::Changed(Change change, Interface& interface, const InterfaceAddress* address) {
  if (change_hook_) change_hook_(change, interface, address);
}

}  // namespace redoubt::netstack
