// Listening: SYN queue, SYN cookies, accept queue, fast open.
#include <netinet/in.h>

#include <algorithm>

#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/endpoint_use.h"

namespace redoubt::netstack::tcp {

namespace {
// How long after the last SYN cookie an ACK may still bring one back.
constexpr Time kCookieLife = 128 * kSecond;
}  // namespace

Result<> Endpoint::Listen(uint32_t backlog) {
  Use use(*this);
  if (connection_ || closed_) return Err(EINVAL);
  backlog_.store(backlog);
  if (listening_) return {};
  if (!claim_) TRY(BindLocked({.address = Address::Any(family_)}));
  TRY(protocol_.stack().ports().SetListening(claim_, true));
  Address wire = TRY(ToWire(bound_.address));
  listen_ = std::make_unique<ListenState>();
  listener_closed_ = false;
  listening_ = true;
  bool both = wire.is_ipv6() && wire.IsUnspecified() && !options_.v6_only;
  protocol_.InsertListener(bound_.port, {.endpoint = RefPtr(this),
                                         .address = both ? Address() : wire,
                                         .interface_index = bound_.interface_index,
                                         .reuse_port = options_.reuse_port});
  return {};
}

bool Endpoint::StopListening() {
  std::vector<RefPtr<Endpoint>> refused;
  uint16_t port = 0;
  {
    Use use(*this);
    if (!listening_) return false;
    listening_ = false;
    listener_closed_ = true;
    port = bound_.port;
    std::unique_ptr<ListenState> state = std::move(listen_);
    refused.assign(std::make_move_iterator(state->ready.begin() + static_cast<ptrdiff_t>(state->ready_head)),
                   std::make_move_iterator(state->ready.end()));
    ready_count_ = 0;
    // The claim stays, but nobody listens on it any more.
    (void)protocol_.stack().ports().SetListening(claim_, false);
    use.Notify(waiter::kIn | waiter::kHup);
  }
  RefPtr<Endpoint> self(this);
  protocol_.RemoveListener(port, *this);
  for (RefPtr<Endpoint>& child : refused) child->Close(true);
  return true;
}

Result<RefPtr<Endpoint>> Endpoint::Accept() {
  Use use(*this);
  if (!listening_) return Err(EINVAL);
  ListenState& l = *listen_;
  if (l.ready_head == l.ready.size()) return Err(EAGAIN);
  RefPtr<Endpoint> child = std::move(l.ready[l.ready_head++]);
  if (l.ready_head == l.ready.size()) {
    l.ready.clear();
    l.ready_head = 0;
  } else if (l.ready_head >= 64 && l.ready_head >= l.ready.size() / 2) {
    l.ready.erase(l.ready.begin(), l.ready.begin() + static_cast<ptrdiff_t>(l.ready_head));
    l.ready_head = 0;
  }
  ready_count_.fetch_sub(1);
  return child;
}

void Endpoint::ChildReady(RefPtr<Endpoint> child) {
  {
    Use use(*this);
    if (listening_) {
      listen_->ready.push_back(std::move(child));
      ready_count_.fetch_add(1);
      use.Notify(waiter::kIn | waiter::kRdNorm);
      return;
    }
  }
  child->Close(true);
}

// A segment of no connection (RFC 9293 section 3.10.7.2).
void Endpoint::HandleListen(const FourTuple& id, Segment& segment, uint32_t interface_index) {
  if (segment.Has(kRst)) return;
  if (segment.Has(kAck)) {
    HandleCookie(id, segment, interface_index);
  } else if (segment.Has(kSyn) && !segment.Has(kFin)) {
    HandleSyn(id, segment, interface_index);
  }
}

// With our options, not yet in any table.
RefPtr<Endpoint> Endpoint::MakeChild(const FourTuple& id, uint32_t interface_index) {
  RefPtr<Endpoint> child = Create(protocol_, family_);
  EndpointOptions options;
  Settings settings;
  std::shared_ptr<const bpf::Program> filter;
  {
    sync::MutexLock lock(mu_);
    if (!listening_) return nullptr;
    options = options_;
    settings = settings_;
    filter = filter_;
  }
  // A link-local address means something on its link only.
  uint32_t interface = id.remote.IsLinkLocal() ? interface_index : options.bound_interface;
  Result<Route> route =
      protocol_.stack().FindRoute({.remote = id.remote, .local = id.local, .interface_index = interface});
  if (!route) return nullptr;
  sync::MutexLock lock(child->mu_);
  child->options_ = options;
  child->settings_ = settings;
  child->filter_ = std::move(filter);
  child->id_ = id;
  child->bound_ = {FromWire(id.local), id.local_port, interface};
  child->SetRoute(*std::move(route));
  return child;
}

void Endpoint::HandleSyn(const FourTuple& id, Segment& segment, uint32_t interface_index) {
  TcpStats& stats = protocol_.stats_;
  uint32_t backlog = backlog_.load();
  // Linux counts so: a backlog of n lets n + 1 wait.
  if (ready_count_.load() > backlog) {
    stats.listen_overflows.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  RefPtr<Endpoint> child = MakeChild(id, interface_index);
  if (!child) return;
  uint32_t limit = std::min(std::max(backlog, 8u), protocol_.sysctls_.max_syn_backlog.load());
  if (syn_count_.load() >= limit) {
    if (protocol_.sysctls_.syn_cookies) {
      Config config;
      {
        sync::MutexLock lock(child->mu_);
        config = child->MakeConfig();
      }
      SendSynCookie(id, segment, config);
    } else {
      stats.listen_drops.fetch_add(1, std::memory_order_relaxed);
    }
    return;
  }
  std::optional<FastOpenCookie> reply;
  bool accept_data = false;
  {
    Use use(*child);
    Config config = child->MakeConfig();
    config.ecn = protocol_.sysctls_.ecn != 0;
    if (segment.options.fast_open && child->options_.fast_open_queue > 0 &&
        (protocol_.sysctls_.fast_open.load() & 2) != 0) {
      FastOpenCookie good = protocol_.cookies_.OpenCookie(id.remote);
      const FastOpenCookie& theirs = *segment.options.fast_open;
      if (!std::ranges::equal(theirs.span(), good.span())) {
        reply = good;
      } else if (fast_open_count_.load() < child->options_.fast_open_queue) {
        accept_data = true;
      }
    }
    if (!protocol_.Insert(id, *child)) return;  // another thread was quicker
    child->inserted_ = true;
    child->parent_ = RefPtr(this);
    child->deferred_until_ = Now() + child->options_.defer_accept;
    syn_count_.fetch_add(1);
    if (accept_data) {
      child->fast_opened_ = true;
      child->was_connected_ = true;
      fast_open_count_.fetch_add(1);
      stats.fast_open_passive.fetch_add(1, std::memory_order_relaxed);
    }
    stats.passive_opens.fetch_add(1, std::memory_order_relaxed);
    child->connection_.reset(new Connection(config, child->settings_, *child));
    child->connection_->Accept(Now(), protocol_.cookies_.InitialSequence(id, Now()), segment, accept_data, reply);
  }
  if (accept_data) ChildReady(std::move(child));
}

// Answers without keeping anything.
void Endpoint::SendSynCookie(const FourTuple& id, const Segment& syn, const Config& config) {
  Segment s;
  s.flags = kSyn | kAck;
  s.seq = protocol_.cookies_.SynCookie(id, syn.seq, syn.options.mss.value_or(536), Now());
  s.ack = syn.seq + 1;
  s.window = static_cast<uint16_t>(std::min<uint32_t>(config.receive_buffer, 0xffff));
  s.options.mss = static_cast<uint16_t>(std::min<uint32_t>(config.mtu - kHeaderSize, 0xffff));
  if (syn.options.timestamp && config.timestamps) {
    Options keep = syn.options;
    if (!config.window_scaling) keep.window_scale.reset();
    if (!config.sack) keep.sack_permitted = false;
    s.options.timestamp = true;
    uint32_t clock = static_cast<uint32_t>(Now() / kMillisecond);
    // The offset is left out of the bits, which must come back as they went.
    s.options.ts_value = CookieJar::PackOptions(clock + config.ts_offset, keep);
    s.options.ts_echo = syn.options.ts_value;
    s.options.sack_permitted = keep.sack_permitted;
    if (keep.window_scale) s.options.window_scale = Connection::WindowScale(config);
  }
  cookie_sent_.store(Now());
  protocol_.stats_.syn_cookies_sent.fetch_add(1, std::memory_order_relaxed);
  protocol_.SendAlone(id, s);
}

void Endpoint::HandleCookie(const FourTuple& id, Segment& segment, uint32_t interface_index) {
  TcpStats& stats = protocol_.stats_;
  Time sent = cookie_sent_.load();
  std::optional<uint16_t> mss;
  if (!segment.Has(kSyn) && sent >= 0 && Now() - sent < kCookieLife) {
    mss = protocol_.cookies_.CheckSynCookie(id, segment.seq - 1, segment.ack - 1, Now());
    if (!mss) stats.syn_cookies_failed.fetch_add(1, std::memory_order_relaxed);
  }
  if (!mss) {
    protocol_.SendReset(id, segment);
    return;
  }
  if (ready_count_.load() > backlog_.load()) {
    stats.listen_overflows.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  RefPtr<Endpoint> child = MakeChild(id, interface_index);
  if (!child) return;
  stats.syn_cookies_received.fetch_add(1, std::memory_order_relaxed);
  Options options;
  if (segment.options.timestamp) options = CookieJar::UnpackOptions(segment.options.ts_echo);
  options.mss = mss;
  Use use(*child);
  if (!protocol_.Insert(id, *child)) return;
  child->inserted_ = true;
  child->parent_ = RefPtr(this);
  syn_count_.fetch_add(1);
  stats.passive_opens.fetch_add(1, std::memory_order_relaxed);
  child->connection_.reset(new Connection(child->MakeConfig(), child->settings_, *child));
  child->connection_->AcceptCookie(Now(), segment.ack - 1, segment, options);
  (void)child->connection_->OnSegment(Now(), segment);
}

}  // namespace redoubt::netstack::tcp
