#include "pkg/netstack/transport/datagram_endpoint.h"

#include <algorithm>

#include "pkg/netstack/transport/filtered_packet.h"

namespace redoubt::netstack {

void DatagramEndpoint::SetFilter(std::shared_ptr<const bpf::Program> filter) {
  sync::MutexLock lock(mu_);
  filter_.swap(filter);
  filtered_.store(filter_ != nullptr, std::memory_order_relaxed);
}

size_t DatagramEndpoint::RunFilter(const Packet& packet, const FilterPlaces& places) const {
  std::shared_ptr<const bpf::Program> filter;
  {
    sync::MutexLock lock(mu_);
    filter = filter_;
  }
  if (filter == nullptr) return SIZE_MAX;
  return filter->Run(FilteredPacket(packet, places.data, places.network, places.link, stack_.random()));
}

waiter::EventMask DatagramEndpoint::Readiness() const {
  sync::MutexLock lock(mu_);
  waiter::EventMask r = waiter::kOut | waiter::kWrNorm;  // nothing that is sent waits here
  if (!queue_.empty() || read_shutdown_) r |= waiter::kIn | waiter::kRdNorm;
  if (read_shutdown_) r |= waiter::kRdHup;
  if (read_shutdown_ && write_shutdown_) r |= waiter::kHup;
  if (error_ != 0 || !errors_.empty() || !stamps_.empty()) r |= waiter::kErr;
  return r;
}

DatagramOptions DatagramEndpoint::options() const {
  sync::MutexLock lock(mu_);
  return options_;
}

void DatagramEndpoint::SetOptions(const DatagramOptions& options) {
  sync::MutexLock lock(mu_);
  options_ = options;
}

Result<PacketPtr> DatagramEndpoint::Receive(bool peek) {
  sync::MutexLock lock(mu_);
  if (error_ != 0) return Err(std::exchange(error_, 0));
  if (queue_.empty()) {
    if (read_shutdown_) return PacketPtr();
    return Err(EAGAIN);
  }
  if (peek) {
    queue_.front().peeked = true;
    return ClonePacket(queue_.front());
  }
  PacketPtr packet = queue_.PopFront();
  queued_bytes_ -= packet->data.memory() + sizeof(Packet);
  return packet;
}

Result<PacketPtr> DatagramEndpoint::PeekBehind(size_t& offset) {
  sync::MutexLock lock(mu_);
  if (error_ != 0) return Err(std::exchange(error_, 0));
  size_t left = offset;
  for (Packet& p : queue_) {
    const size_t size = p.data.size();
    if (left >= size && (left > 0 || p.peeked)) {
      left -= size;
      continue;
    }
    if (size == 0) p.peeked = true;
    offset = left;
    return ClonePacket(p);
  }
  if (read_shutdown_) return PacketPtr();
  return Err(EAGAIN);
}

int DatagramEndpoint::TakeError() {
  sync::MutexLock lock(mu_);
  return std::exchange(error_, 0);
}

std::optional<QueuedError> DatagramEndpoint::TakeQueuedError() {
  sync::MutexLock lock(mu_);
  if (errors_.empty()) return std::nullopt;
  QueuedError e = errors_.front();
  errors_.erase(errors_.begin());
  return e;
}

std::optional<Stamp> DatagramEndpoint::TakeStamp() {
  sync::MutexLock lock(mu_);
  return stamps_.Take();
}

void DatagramEndpoint::RestartStampNumbers() {
  sync::MutexLock lock(mu_);
  next_stamp_ = 0;
}

void DatagramEndpoint::Stamped(StampPlace place, uint32_t key, const Packet& frame, size_t link_header) {
  {
    sync::MutexLock lock(mu_);
    if (closed_) return;
    stamps_.Push(MakeStamp(place, key, stack_.Now(), frame, link_header, options_.stamps_have_frames),
                 options_.receive_buffer);
  }
  waiters_.Notify(waiter::kErr);
}

size_t DatagramEndpoint::ReceiveQueueBytes() const {
  sync::MutexLock lock(mu_);
  return queue_.empty() ? 0 : queue_.front().data.size();
}

uint64_t DatagramEndpoint::dropped() const {
  sync::MutexLock lock(mu_);
  return dropped_;
}

bool DatagramEndpoint::Enqueue(PacketPtr packet) {
  size_t memory = packet->data.memory() + sizeof(Packet);
  {
    sync::MutexLock lock(mu_);
    // As Linux: one datagram always fits into an empty queue.
    if (closed_ || read_shutdown_ || (queued_bytes_ + memory > options_.receive_buffer && !queue_.empty())) {
      dropped_++;
      return false;
    }
    packet->interface = nullptr;
    queue_.PushBack(std::move(packet));
    queued_bytes_ += memory;
  }
  waiters_.Notify(waiter::kIn | waiter::kRdNorm);
  return true;
}

void DatagramEndpoint::ReportError(const TransportError& error, const SocketAddress& destination, bool pending) {
  {
    sync::MutexLock lock(mu_);
    if (closed_) return;
    if (pending || options_.receive_errors) error_ = error.error.value();
    if (options_.receive_errors && errors_.size() < kMaxErrors) errors_.push_back({error, destination});
    if (error_ == 0) return;
  }
  waiters_.Notify(waiter::kErr);
}

Result<RefPtr<Interface>> DatagramEndpoint::GroupInterface(const Address& group, uint32_t interface_index) {
  if (interface_index != 0) {
    RefPtr<Interface> interface = stack_.FindInterface(interface_index);
    if (interface == nullptr) return Err(ENODEV);
    return interface;
  }
  Result<Route> route = stack_.FindRoute({.remote = group});
  if (!route) return Err(ENODEV);
  return RefPtr<Interface>(&route->interface());
}

Result<> DatagramEndpoint::JoinGroup(const Address& group, uint32_t interface_index, SourceMode mode) {
  if (!group.IsMulticast()) return Err(EINVAL);
  RefPtr<Interface> interface = TRY(GroupInterface(group, interface_index));
  {
    sync::MutexLock lock(mu_);
    TRY(memberships_.Add(group, interface->index(), mode));
  }
  Result<> joined = interface->JoinGroup(group);
  if (!joined) {
    sync::MutexLock lock(mu_);
    (void)memberships_.Remove(group, interface->index());
  }
  return joined;
}

Result<> DatagramEndpoint::LeaveGroup(const Address& group, uint32_t interface_index) {
  uint32_t index;
  {
    sync::MutexLock lock(mu_);
    index = TRY(memberships_.Remove(group, interface_index));
  }
  if (RefPtr<Interface> interface = stack_.FindInterface(index)) (void)interface->LeaveGroup(group);
  return {};
}

Result<> DatagramEndpoint::ChangeSource(const Address& group, uint32_t interface_index, const Address& source,
                                        SourceMode mode, Memberships::Change change) {
  if (!group.IsMulticast()) return Err(EINVAL);
  RefPtr<Interface> interface = TRY(GroupInterface(group, interface_index));
  Memberships::Outcome outcome;
  {
    sync::MutexLock lock(mu_);
    outcome = TRY(memberships_.ChangeSource(group, interface->index(), source, mode, change));
  }
  return outcome == Memberships::Outcome::kLastRemoved ? LeaveGroup(group, interface->index()) : Result<>();
}

Result<> DatagramEndpoint::SetSourceFilter(const Address& group, uint32_t interface_index, SourceFilter filter) {
  if (!group.IsMulticast()) return Err(EINVAL);
  RefPtr<Interface> interface = TRY(GroupInterface(group, interface_index));
  if (filter.mode == SourceMode::kInclude && filter.sources.empty()) return LeaveGroup(group, interface->index());
  sync::MutexLock lock(mu_);
  return memberships_.SetFilter(group, interface->index(), std::move(filter));
}

Result<SourceFilter> DatagramEndpoint::GetSourceFilter(const Address& group, uint32_t interface_index) {
  if (!group.IsMulticast()) return Err(EINVAL);
  RefPtr<Interface> interface = TRY(GroupInterface(group, interface_index));
  sync::MutexLock lock(mu_);
  const Memberships::Membership* m = memberships_.Find(group, interface->index());
  if (m == nullptr) return Err(EADDRNOTAVAIL);
  return m->filter;
}

bool DatagramEndpoint::TakesMulticast(const Address& group, uint32_t interface_index, const Address& source) const {
  sync::MutexLock lock(mu_);
  return TakesMulticastLocked(group, interface_index, source);
}

bool DatagramEndpoint::TakesMulticastLocked(const Address& group, uint32_t interface_index,
                                            const Address& source) const {
  const Memberships::Membership* m = memberships_.Find(group, interface_index);
  return m != nullptr ? m->filter.Allows(source) : options_.multicast_all;
}

void DatagramEndpoint::LeaveAllGroups() {
  std::vector<Memberships::Membership> memberships;
  {
    sync::MutexLock lock(mu_);
    memberships.swap(memberships_.all());
  }
  for (const Memberships::Membership& m : memberships) {
    if (RefPtr<Interface> interface = stack_.FindInterface(m.interface_index)) (void)interface->LeaveGroup(m.group);
  }
}

Result<Route> DatagramEndpoint::FindRouteLocked(const SocketAddress& to, const Address& bound, const SendOptions& own) {
  const Address& local = own.local.empty() ? bound : own.local;
  RouteRequest request{.remote = to.address,
                       .local = local,
                       .interface_index = options_.bound_interface != 0 ? options_.bound_interface
                                          : own.interface_index != 0    ? own.interface_index
                                                                        : to.interface_index,
                       .broadcast_allowed = options_.broadcast,
                       .foreign = options_.foreign};
  if (to.address.IsMulticast()) {
    if (request.interface_index == 0) request.interface_index = options_.multicast_interface;
    if (request.local.empty() && options_.multicast_source.family() == to.address.family()) {
      request.local = options_.multicast_source;
    }
  } else if (local.IsMulticast()) {
    request.local = {};  // bound to a group: that receives, it is no source
  }
  if (route_ && !route_.IsStale() && request.remote == route_request_.remote && request.local == route_request_.local &&
      request.interface_index == route_request_.interface_index &&
      request.broadcast_allowed == route_request_.broadcast_allowed && request.foreign == route_request_.foreign) {
    return route_;
  }
  route_ = TRY(stack_.FindRoute(request));
  route_request_ = request;
  return route_;
}

WriteOptions DatagramEndpoint::WriteOptionsLocked(const Route& route, uint8_t protocol, const SendOptions& own) {
  WriteOptions options{.protocol = protocol,
                       .ttl = own.ttl.value_or(route.is_multicast() ? options_.multicast_ttl : options_.ttl),
                       .traffic_class = own.traffic_class.value_or(options_.traffic_class),
                       .dont_fragment = options_.dont_fragment,
                       .multicast_loop = options_.multicast_loop};
  if (const StampPlaces places = own.stamps.value_or(options_.stamps); places != 0) {
    options.stamp = {.owner = RefPtr<RefCounted>(this),
                     .receiver = this,
                     .key = options_.number_stamps ? next_stamp_++ : 0,
                     .places = places};
  }
  return options;
}

}  // namespace redoubt::netstack
