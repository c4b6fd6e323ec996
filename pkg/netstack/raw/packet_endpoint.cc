#include "pkg/netstack/raw/packet_endpoint.h"

#include <algorithm>
#include <utility>

#include "pkg/netstack/header/link.h"
#include "pkg/netstack/raw/fanout.h"

namespace redoubt::netstack {

// The stack holds the tap, the tap its endpoint: Close breaks the circle.
class PacketEndpoint::Tap final : public PacketTap {
 public:
  explicit Tap(PacketEndpoint& endpoint) : endpoint_(&endpoint) {}
  void HandleTapped(const Packet& packet) override { endpoint_->Handle(packet); }

 private:
  RefPtr<PacketEndpoint> endpoint_;
};

PacketEndpoint::PacketEndpoint(Stack& stack, Kind kind) : DatagramEndpoint(stack), kind_(kind) {}

PacketEndpoint::~PacketEndpoint() = default;

RefPtr<PacketEndpoint> PacketEndpoint::Create(Stack& stack, Kind kind) {
  auto e = MakeRef<PacketEndpoint>(stack, kind);
  sync::MutexLock lock(e->mu_);
  e->tap_ = MakeRef<Tap>(*e);
  return e;
}

Result<> PacketEndpoint::Bind(uint16_t ethertype, uint32_t interface_index) {
  RefPtr<Interface> interface;
  if (interface_index != 0) {
    interface = stack_.FindInterface(interface_index);
    if (interface == nullptr) return Err(ENODEV);
  }
  RefPtr<PacketTap> tap;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return Err(EBADF);
    if (fanout_ != nullptr) return Err(EINVAL);
    ethertype_ = ethertype;
    interface_index_ = interface_index;
    tap = tap_;
  }
  stack_.RemoveFrameTap(*tap);
  if (ethertype != 0) stack_.AddFrameTap(ethertype, interface_index, std::move(tap));
  if (ethertype != 0 && interface != nullptr && !interface->up()) {
    ReportError({.origin = ErrorOrigin::kLocal, .error = Errno(ENETDOWN)}, {}, true);
  }
  return {};
}

uint16_t PacketEndpoint::ethertype() const {
  sync::MutexLock lock(mu_);
  return ethertype_;
}

uint32_t PacketEndpoint::interface_index() const {
  sync::MutexLock lock(mu_);
  return interface_index_;
}

void PacketEndpoint::Handle(const Packet& packet) {
  if (!shares_.load(std::memory_order_acquire)) return Accept(packet);
  RefPtr<FanoutGroup> group;
  {
    sync::MutexLock lock(mu_);
    group = fanout_;
  }
  if (group == nullptr) return;
  if (RefPtr<PacketEndpoint> member = group->Choose(*this, packet)) member->Accept(packet);
}

Result<> PacketEndpoint::JoinFanout(FanoutGroups& groups, uint16_t number, FanoutRule rule) {
  sync::MutexLock lock(mu_);
  if (closed_) return Err(EBADF);
  if (fanout_ != nullptr) return Err(EALREADY);
  if (ethertype_ == 0) return Err(EINVAL);
  rule.ethertype = ethertype_;
  rule.interface_index = interface_index_;
  fanout_ = TRY(groups.Join(number, rule, *this));
  fanout_groups_ = &groups;
  fanout_number_ = number;
  shares_.store(true, std::memory_order_release);
  return {};
}

void PacketEndpoint::Accept(const Packet& packet) {
  if (packet.type == PacketType::kOutgoing && ignores_outgoing()) return;
  size_t header = packet.interface->link().header_size();
  PacketPtr copy = ClonePacket(packet);
  if (kind_ == Kind::kRaw && header == 0) {
    // Linux's loopback has Ethernet headers of zeros.
    header = header::Ethernet::kSize;
    header::Ethernet{.ethertype = packet.ethertype}.Write({copy->data.Prepend(header), header});
  }
  const size_t begin = kind_ == Kind::kRaw ? 0 : header;
  const size_t kept = Filter(*copy, {.data = begin, .network = header, .link = 0});
  if (kept == 0) return;
  copy->data.TrimFront(begin);
  copy->hardware_type = packet.interface->link().hardware_type();
  copy->whole_size = static_cast<uint32_t>(copy->data.size());
  copy->data.CapLength(kept);
  std::shared_ptr<FrameSink> sink;
  {
    sync::MutexLock lock(mu_);
    sink = sink_;
  }
  const bool taken = sink != nullptr ? sink->Take(*copy, header - begin) : Enqueue(std::move(copy));
  (taken ? received_ : dropped_).fetch_add(1, std::memory_order_relaxed);
  if (sink != nullptr && taken) waiters_.Notify(waiter::kIn | waiter::kRdNorm);
}

Result<size_t> PacketEndpoint::Send(Buffer data, uint32_t interface_index, const LinkAddress& link,
                                    uint16_t ethertype) {
  RefPtr<Interface> interface = stack_.FindInterface(interface_index);
  if (interface == nullptr) return Err(ENXIO);
  if (!interface->up()) return Err(ENETDOWN);
  size_t size = data.size();
  size_t link_header = interface->link().header_size();
  size_t header = kind_ == Kind::kRaw ? header::Ethernet::kSize : 0;
  if (size < header) return Err(EINVAL);
  if (size > interface->mtu() + header) return Err(EMSGSIZE);
  RefPtr<PacketTap> tap;
  {
    sync::MutexLock lock(mu_);
    tap = tap_;
  }
  PacketPtr packet = NewPacket(std::move(data));
  if (kind_ == Kind::kCooked) {
    packet->ethertype = ethertype;
    TRY(interface->SendTo(link, std::move(packet), tap.get()));
    return size;
  }
  if (link_header == 0) {
    packet->ethertype = header::Ethernet::Parse(packet->data.PullUp(header))->ethertype;
    packet->data.TrimFront(header);
  }
  TRY(interface->SendFrame(std::move(packet), tap.get()));
  return size;
}

void PacketEndpoint::SetSink(std::shared_ptr<FrameSink> sink) {
  {
    sync::MutexLock lock(mu_);
    sink_.swap(sink);
  }
  while (Result<PacketPtr> p = Receive()) {
    if (*p == nullptr) break;  // shut down
  }
}

PacketEndpoint::Statistics PacketEndpoint::TakeStatistics() {
  return {.received = received_.exchange(0, std::memory_order_relaxed),
          .dropped = dropped_.exchange(0, std::memory_order_relaxed)};
}

Result<> PacketEndpoint::AddMembership(uint32_t interface_index, Wish wish, const LinkAddress& address) {
  RefPtr<Interface> interface = stack_.FindInterface(interface_index);
  if (interface == nullptr) return Err(ENODEV);
  {
    sync::MutexLock lock(mu_);
    if (closed_) return Err(EBADF);
    auto same = std::ranges::find_if(wishes_, [&](const Membership& m) {
      return m.interface_index == interface_index && m.wish == wish && m.address == address;
    });
    if (same != wishes_.end()) {
      same->count++;
      return {};
    }
    if (wishes_.size() >= kMaxMemberships) return Err(ENOBUFS);
    wishes_.push_back({.interface_index = interface_index, .wish = wish, .address = address, .count = 1});
  }
  if (wish == Wish::kPromiscuous) interface->ChangePromiscuity(1);
  return {};
}

void PacketEndpoint::DropMembership(uint32_t interface_index, Wish wish, const LinkAddress& address) {
  {
    sync::MutexLock lock(mu_);
    auto same = std::ranges::find_if(wishes_, [&](const Membership& m) {
      return m.interface_index == interface_index && m.wish == wish && m.address == address;
    });
    if (same == wishes_.end()) return;
    if (--same->count > 0) return;
    wishes_.erase(same);
  }
  if (wish == Wish::kPromiscuous) LeavePromiscuity(interface_index);
}

void PacketEndpoint::LeavePromiscuity(uint32_t interface_index) {
  if (RefPtr<Interface> interface = stack_.FindInterface(interface_index)) interface->ChangePromiscuity(-1);
}

void PacketEndpoint::Close() {
  RefPtr<PacketTap> tap;
  std::shared_ptr<FrameSink> sink;
  std::vector<Membership> wishes;
  RefPtr<FanoutGroup> fanout;
  FanoutGroups* groups;
  uint16_t number;
  {
    sync::MutexLock lock(mu_);
    if (closed_) return;
    closed_ = true;
    fanout = std::move(fanout_);
    groups = fanout_groups_;
    number = fanout_number_;
    tap = std::move(tap_);
    sink = std::move(sink_);
    wishes.swap(wishes_);
  }
  if (fanout != nullptr) groups->Leave(number, *fanout, *this);
  stack_.RemoveFrameTap(*tap);
  for (const Membership& m : wishes) {
    if (m.wish == Wish::kPromiscuous) LeavePromiscuity(m.interface_index);
  }
  waiters_.Notify(waiter::kHup | waiter::kIn);
}

}  // namespace redoubt::netstack
