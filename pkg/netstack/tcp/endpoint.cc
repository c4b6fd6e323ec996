#include "pkg/netstack/tcp/endpoint.h"

#include <netinet/in.h>

#include <algorithm>

#include "pkg/netstack/checksum/checksum.h"
#include "pkg/netstack/tcp/endpoint_use.h"
#include "pkg/netstack/tcp/stamps.h"

namespace redoubt::netstack::tcp {

RefPtr<Endpoint> Endpoint::Create(TcpProtocol& protocol, Family family) { return MakeRef<Endpoint>(protocol, family); }

Endpoint::Endpoint(TcpProtocol& protocol, Family family)
    : protocol_(protocol),
      family_(family),
      mu_(sync::Rank::kNetEndpoint),
      timer_(protocol.stack().timers(), *this, &Endpoint::OnTimerFired, this) {}

Endpoint::~Endpoint() = default;

void Endpoint::OnTimerFired(void* self, Time now) {
  Endpoint& e = *static_cast<Endpoint*>(self);
  Use use(e);
  if (e.connection_) e.connection_->OnTimer(now);
}

// The address of the IP version that will be spoken.
Result<Address> Endpoint::ToWire(const Address& a) const {
  if (family_ == Family::kIpv4) {
    if (!a.is_ipv4()) return Err(EAFNOSUPPORT);
    return a;
  }
  if (!a.is_ipv6()) return Err(EAFNOSUPPORT);
  if (!a.IsV4Mapped()) return a;
  if (options_.v6_only) return Err(ENETUNREACH);
  return a.FromV4Mapped();
}

Result<> Endpoint::Bind(const SocketAddress& address) {
  Use use(*this);
  return BindLocked(address);
}

Result<> Endpoint::BindLocked(const SocketAddress& address) {
  if (claim_ || connection_ || closed_) return Err(EINVAL);
  Address wire = TRY(ToWire(address.address));
  if (wire.is_ipv6() && wire.IsMulticast() && options_.foreign.may_bind()) return Err(EINVAL);
  if (!wire.IsUnspecified() && !options_.foreign.may_bind() && !protocol_.stack().IsLocal(wire)) {
    return Err(EADDRNOTAVAIL);
  }
  uint32_t interface = options_.bound_interface;
  if (interface == 0 && wire.IsLinkLocal()) interface = address.interface_index;
  claim_ = TRY(protocol_.stack().ports().Reserve({.protocol = IPPROTO_TCP,
                                                  .address = wire,
                                                  .port = address.port,
                                                  .interface_index = interface,
                                                  .v6_only = options_.v6_only,
                                                  .reuse_address = options_.reuse_address,
                                                  .reuse_port = options_.reuse_port,
                                                  .owner = options_.owner}));
  bound_ = {address.address, claim_.port(), interface};
  return {};
}

Result<bool> Endpoint::KnowsOpenCookie(const SocketAddress& peer) {
  if ((protocol_.sysctls_.fast_open.load() & 1) == 0) return Err(EOPNOTSUPP);
  Address remote;
  {
    sync::MutexLock lock(mu_);
    remote = TRY(ToWire(peer.address));
  }
  if (remote.IsUnspecified()) remote = Address::Loopback(remote.family());
  return protocol_.OpenCookieOf(remote).has_value();
}

Result<> Endpoint::Connect(const SocketAddress& peer, bool fast_open, Buffer data) {
  Use use(*this);
  if (closed_) return Err(EINVAL);
  if (listening_) return Err(EISCONN);
  if (connection_) {
    if (!connecting_) return Err(EISCONN);
    State s = connection_->state();
    if (s == State::kSynSent || s == State::kSynReceived) return Err(EALREADY);
    connecting_ = false;
    if (s != State::kClosed || connection_->error() == 0) {
      if (was_connected_) return {};
    }
    int error = TakeErrorLocked();
    connection_.reset();
    id_ = {};
    return Err(error != 0 ? error : ECONNABORTED);
  }
  Address remote = TRY(ToWire(peer.address));
  if (remote.IsUnspecified()) remote = Address::Loopback(remote.family());  // as Linux
  if (remote.IsMulticast() || remote.IsLimitedBroadcast()) return Err(ENETUNREACH);
  Address local;
  if (bound_.port != 0) {
    local = TRY(ToWire(bound_.address));
    if (local.IsUnspecified()) local = {};
    if (!local.empty() && local.family() != remote.family()) return Err(EINVAL);
  }
  Stack& stack = protocol_.stack();
  uint32_t interface = options_.bound_interface != 0 ? options_.bound_interface : peer.interface_index;
  Route route = TRY(
      stack.FindRoute({.remote = remote, .local = local, .interface_index = interface, .foreign = options_.foreign}));
  if (route.is_broadcast() || route.is_multicast()) return Err(ENETUNREACH);
  FourTuple id{.local = route.local(), .remote = remote, .local_port = bound_.port, .remote_port = peer.port};
  if (id.local_port != 0) {
    if (!protocol_.Insert(id, *this)) return Err(EADDRNOTAVAIL);
  } else {
    PortRequest request{.protocol = IPPROTO_TCP, .address = id.local};
    uint16_t port = stack.ports().PickEphemeral(HashTuple(protocol_.hash_key_, id), [&](uint16_t p) {
      id.local_port = request.port = p;
      return stack.ports().IsFree(request) && protocol_.Insert(id, *this);
    });
    if (port == 0) return Err(EADDRNOTAVAIL);
  }
  id_ = id;
  bound_.interface_index = interface;
  inserted_ = true;
  SetRoute(std::move(route));
  connection_.reset(new Connection(MakeConfig(), settings_, *this));
  connecting_ = true;
  was_connected_ = false;
  std::optional<FastOpenCookie> cookie;
  if (fast_open && (protocol_.sysctls_.fast_open.load() & 1) != 0) {
    cookie = protocol_.OpenCookieOf(remote).value_or(FastOpenCookie{});
    protocol_.stats_.fast_open_active.fetch_add(1, std::memory_order_relaxed);
  }
  protocol_.stats_.active_opens.fetch_add(1, std::memory_order_relaxed);
  connection_->Connect(Now(), protocol_.cookies_.InitialSequence(id_, Now()), cookie, std::move(data));
  return Err(EINPROGRESS);
}

void Endpoint::SetRoute(Route route) {
  route_ = std::move(route);
  route_changed_ = true;
  pseudo_sum_ = PseudoHeaderSum(id_.local.bytes(), id_.remote.bytes(), IPPROTO_TCP, 0);
}

// Bytes of TCP header and payload in the largest packet. IPv4's total length, and IPv6's payload length, end at 65535.
uint32_t Endpoint::PathMtu() {
  uint32_t header = id_.remote.is_ipv4() ? 20 : 40;
  return std::clamp<uint32_t>(route_.mtu(), header + 68, 65535) - header;
}

void Endpoint::RefreshRoute() {
  if (route_.IsStale()) {
    Result<Route> route = protocol_.stack().FindRoute({.remote = id_.remote,
                                                       .local = id_.local,
                                                       .interface_index = bound_.interface_index,
                                                       .foreign = options_.foreign});
    // Without a route now there may be one later; until then the old one fails as the network would.
    if (route) SetRoute(*std::move(route));
  }
  uint32_t mtu = PathMtu();
  if (mtu != connection_->path_mtu()) connection_->OnPathMtu(Now(), mtu, false);
}

Config Endpoint::MakeConfig() {
  const Sysctls& s = protocol_.sysctls_;
  Config c;
  c.mtu = PathMtu();
  uint32_t header = id_.remote.is_ipv4() ? 20 : 40;
  c.gso_max = route_.gso_max() > header ? std::min<uint32_t>(route_.gso_max(), 65535) - header : 0;
  c.max_segment = options_.max_segment;
  c.timestamps = s.timestamps;
  c.sack = s.sack;
  c.window_scaling = s.window_scaling;
  c.ecn = s.ecn == 1;
  c.receive_buffer = (options_.receive_buffer != 0 ? options_.receive_buffer : s.receive_buffer.load()) / 2;
  c.max_receive_buffer = options_.receive_buffer != 0 ? c.receive_buffer : s.max_receive_buffer / 2;
  c.send_buffer = options_.send_buffer != 0 ? options_.send_buffer : s.send_buffer.load();
  c.max_send_buffer = options_.send_buffer != 0 ? c.send_buffer : s.max_send_buffer.load();
  c.ts_offset = protocol_.cookies_.TimestampOffset(id_);
  c.congestion = options_.congestion.value_or(s.congestion);
  settings_.fixed_receive_buffer = options_.receive_buffer != 0;
  settings_.fixed_send_buffer = options_.send_buffer != 0;
  return c;
}

int Endpoint::TakeErrorLocked() {
  if (error_ != 0) return std::exchange(error_, 0);
  return connection_ ? connection_->TakeError() : 0;
}

Result<size_t> Endpoint::WriteRoom(size_t wanted) {
  sync::MutexLock lock(mu_);  // the connection does nothing
  if (int error = TakeErrorLocked()) return Err(error);
  if (!connection_ || connection_->write_shut()) return Err(EPIPE);
  State s = connection_->state();
  size_t room = s == State::kSynSent || (s == State::kSynReceived && !fast_opened_) ? 0 : connection_->SendRoom();
  if (room < wanted) connection_->WantRoom();
  if (room == 0) return Err(EAGAIN);
  return room;
}

Result<size_t> Endpoint::Write(Buffer data, WriteFlags flags) {
  size_t n = data.size();
  Use use(*this);
  if (int error = TakeErrorLocked()) return Err(error);
  if (!connection_) return Err(EPIPE);
  RefreshRoute();
  if (flags.stamps != 0) NoteWrite(n, flags.stamps);
  TRY(connection_->Write(Now(), std::move(data), flags.more, flags.urgent));
  return n;
}

Result<Buffer> Endpoint::Read(size_t n, bool peek, size_t offset, ReadTime* time) {
  Use use(*this);
  if (listening_ || !connection_) {
    if (int error = TakeErrorLocked()) return Err(error);
    return Err(ENOTCONN);
  }
  Connection& c = *connection_;
  const size_t readable = c.Readable();
  if (peek ? readable > offset : readable > 0) {
    if (time != nullptr && stamps_ != nullptr) {
      time->received = ReceiveTime(peek ? offset : 0, std::min(n, readable - (peek ? offset : 0)), peek);
    }
    return peek ? c.Peek(offset, std::min(n, readable - offset)) : c.Read(Now(), n);
  }
  if (c.at_end(peek ? offset : 0)) return Buffer();
  if (int error = TakeErrorLocked()) return Err(error);
  if (read_shut_) return Buffer();
  if (c.state() == State::kClosed) {
    if (was_connected_) return Buffer();
    return Err(ENOTCONN);
  }
  return Err(EAGAIN);
}

void Endpoint::Unread(Buffer data) {
  Use use(*this);
  if (connection_) connection_->Unread(std::move(data));
}

Result<std::byte> Endpoint::ReadUrgent(bool peek) {
  Use use(*this);
  if (!connection_) return Err(ENOTCONN);
  return connection_->ReadUrgent(peek);
}

bool Endpoint::AtUrgentMark() {
  Use use(*this);
  return connection_ && connection_->AtUrgentMark();
}

Result<> Endpoint::Shutdown(bool read, bool write) {
  {
    sync::MutexLock lock(mu_);
    if (listening_ && !read) return {};
  }
  if (read && StopListening()) return {};
  Use use(*this);
  if (!connection_ || connection_->state() == State::kClosed) return Err(ENOTCONN);
  if (read) {
    read_shut_ = true;
    use.Notify(waiter::kIn | waiter::kRdNorm | waiter::kRdHup);
  }
  if (write) {
    connection_->Shutdown(Now());
    use.Notify(waiter::kOut | waiter::kWrNorm | (read_shut_ ? waiter::kHup : 0));
  }
  return {};
}

void Endpoint::Disconnect() {
  StopListening();
  {
    Use use(*this);
    if (!connection_) return;
    if (connection_->state() != State::kClosed) connection_->Abort(Now());
  }
  // Noted and out of the table: now it may go.
  sync::MutexLock lock(mu_);
  if (!connection_ || connection_->state() != State::kClosed) return;
  connection_.reset();
  stamps_.reset();
  id_ = {};
  connecting_ = was_connected_ = read_shut_ = false;
}

void Endpoint::Close(bool abort) {
  StopListening();
  Use use(*this);
  closed_ = true;
  if (!connection_ || connection_->state() == State::kClosed) {
    if (connection_) connection_->Close(Now());
    claim_.Release();
  } else if (abort) {
    connection_->Abort(Now());
  } else {
    connection_->Close(Now());
  }
}

bool Endpoint::is_over() {
  Use use(*this);
  return !connection_ || connection_->state() == State::kClosed || connection_->state() == State::kTimeWait;
}

waiter::EventMask Endpoint::Readiness() {
  sync::MutexLock lock(mu_);  // the connection does nothing
  return ReadinessLocked();
}

waiter::EventMask Endpoint::ReadinessLocked() {
  constexpr waiter::EventMask kReadable = waiter::kIn | waiter::kRdNorm;
  constexpr waiter::EventMask kWritable = waiter::kOut | waiter::kWrNorm;
  if (listening_) return ready_count_.load() > 0 ? kReadable : 0;
  waiter::EventMask mask = 0;
  if (error_ != 0 || (stamps_ != nullptr && !stamps_->told.empty())) mask |= waiter::kErr;
  // A socket that was never connected is closed to Linux: writable, and hung up.
  if (!connection_) return mask | kWritable | waiter::kHup;
  Connection& c = *connection_;
  State s = c.state();
  // To its user a connection in TIME_WAIT is closed.
  bool closed = s == State::kClosed || s == State::kTimeWait;
  bool read_shut = read_shut_ || c.fin_received() || closed;
  if (closed || (read_shut && c.write_shut())) mask |= waiter::kHup;
  if (read_shut) mask |= kReadable | waiter::kRdHup;
  if (s != State::kSynSent && (s != State::kSynReceived || fast_opened_)) {
    if (c.Readable() >= std::max<size_t>(options_.receive_low_water, 1)) mask |= kReadable;
    if (c.write_shut()) {
      mask |= kWritable;
    } else if (c.Writable() && (options_.not_sent_low_water == 0 || c.unsent() < options_.not_sent_low_water)) {
      mask |= kWritable;
    } else {
      c.WantRoom();
    }
    if (c.has_urgent()) mask |= waiter::kPri;
  }
  if (c.error() != 0) mask |= waiter::kErr;
  return mask;
}

// False if the segment, a SYN, may replace this connection.
bool Endpoint::HandleSegment(Segment& segment) {
  Use use(*this);
  if (!connection_) return true;
  if (connection_->state() == State::kSynReceived && parent_) {
    if (parent_->listener_closed_) {
      connection_->Abort(Now());
      return true;
    }
    // As Linux with tcp_abort_on_overflow off: the ACK is as if lost, and the client tries again.
    if (!fast_opened_ && segment.Has(kAck) && parent_->ready_count_.load() > parent_->backlog_.load()) {
      protocol_.stats_.listen_overflows.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
    if (!fast_opened_ && segment.Has(kAck) && segment.length() == 0 && Now() < deferred_until_) return true;
  }
  const Connection::Verdict verdict = connection_->OnSegment(Now(), segment);
  if (options_.stamp_received) NoteReceived();
  if (verdict == Connection::Verdict::kDone) return true;
  connection_->Kill(0);
  return false;
}

void Endpoint::HandleIcmp(const TransportError& error, Seq seq) {
  Use use(*this);
  if (!connection_) return;
  if (error.error == Errno(EMSGSIZE)) {
    if (SeqGe(seq, connection_->snd_una()) && SeqLt(seq, connection_->snd_nxt())) {
      connection_->OnPathMtu(Now(), PathMtu(), true);
    }
    return;
  }
  connection_->OnIcmpError(Now(), seq, error.error.value(), error.hard);
}

}  // namespace redoubt::netstack::tcp
