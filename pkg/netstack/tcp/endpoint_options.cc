// Options and what can be asked of an endpoint.
#include <linux/tcp.h>

#include <algorithm>
#include <cstring>

#include "pkg/netstack/tcp/endpoint.h"
#include "pkg/netstack/tcp/endpoint_use.h"

namespace redoubt::netstack::tcp {

SocketAddress Endpoint::local() {
  sync::MutexLock lock(mu_);
  if (connection_) return {FromWire(id_.local), id_.local_port, bound_.interface_index};
  if (bound_.port != 0) return bound_;
  return {.address = Address::Any(family_)};
}

std::optional<SocketAddress> Endpoint::peer() {
  sync::MutexLock lock(mu_);
  if (!connection_ || connection_->state() == State::kClosed || connection_->state() == State::kSynSent ||
      connection_->state() == State::kTimeWait) {
    return std::nullopt;
  }
  return SocketAddress{FromWire(id_.remote), id_.remote_port, bound_.interface_index};
}

State Endpoint::state() {
  sync::MutexLock lock(mu_);
  if (listening_) return State::kListen;
  return connection_ ? connection_->state() : State::kClosed;
}

int Endpoint::TakeError() {
  sync::MutexLock lock(mu_);
  return TakeErrorLocked();
}

EndpointOptions Endpoint::options() {
  sync::MutexLock lock(mu_);
  return options_;
}

void Endpoint::SetOptions(const EndpointOptions& options) {
  Use use(*this);
  EndpointOptions before = std::exchange(options_, options);
  if (!connection_) return;
  if (options.receive_buffer != before.receive_buffer && options.receive_buffer != 0) {
    connection_->SetReceiveBuffer(Now(), options.receive_buffer / 2);
  }
  if (options.send_buffer != before.send_buffer && options.send_buffer != 0) {
    connection_->SetSendBuffer(options.send_buffer);
  }
  if (options.congestion && options.congestion != before.congestion) {
    connection_->congestion().SetAlgorithm(*options.congestion);
  }
}

Settings Endpoint::settings() {
  sync::MutexLock lock(mu_);
  return connection_ ? connection_->settings() : settings_;
}

void Endpoint::SetSettings(const Settings& settings) {
  Use use(*this);
  settings_ = settings;
  if (!connection_) return;
  bool receive = connection_->settings().fixed_receive_buffer, send = connection_->settings().fixed_send_buffer;
  connection_->settings() = settings;
  connection_->settings().fixed_receive_buffer |= receive;
  connection_->settings().fixed_send_buffer |= send;
  connection_->OnSettings(Now());
}

void Endpoint::SetFilter(std::shared_ptr<const bpf::Program> filter) {
  sync::MutexLock lock(mu_);
  filter_ = std::move(filter);
  if (filter_ != nullptr) protocol_.filtered_.store(true, std::memory_order_relaxed);
}

std::shared_ptr<const bpf::Program> Endpoint::filter() {
  sync::MutexLock lock(mu_);
  return filter_;
}

void Endpoint::SetQuickAck(bool on) {
  Use use(*this);
  if (connection_) connection_->SetQuickAck(Now(), on);
}

uint32_t Endpoint::receive_buffer() {
  sync::MutexLock lock(mu_);
  if (options_.receive_buffer != 0) return options_.receive_buffer;
  return connection_ ? 2 * connection_->receive_buffer() : protocol_.sysctls_.receive_buffer.load();
}

uint32_t Endpoint::send_buffer() {
  sync::MutexLock lock(mu_);
  if (options_.send_buffer != 0) return options_.send_buffer;
  return connection_ ? connection_->send_buffer() : protocol_.sysctls_.send_buffer.load();
}

uint32_t Endpoint::max_segment() {
  sync::MutexLock lock(mu_);
  if (connection_ && connection_->state() != State::kClosed) return connection_->mss();
  return options_.max_segment != 0 ? options_.max_segment : 536;
}

size_t Endpoint::Readable() {
  sync::MutexLock lock(mu_);
  return connection_ ? connection_->Readable() : 0;
}

size_t Endpoint::Unacknowledged() {
  sync::MutexLock lock(mu_);
  return connection_ ? connection_->queued() : 0;
}

size_t Endpoint::Unsent() {
  sync::MutexLock lock(mu_);
  return connection_ ? connection_->unsent() : 0;
}

size_t Endpoint::Info(std::span<std::byte> out) {
  sync::MutexLock lock(mu_);
  tcp_info i;
  std::memset(&i, 0, sizeof(i));
  auto give = [&] {
    size_t n = std::min(out.size(), sizeof(i));
    std::memcpy(out.data(), &i, n);
    return n;
  };
  if (listening_) {
    i.tcpi_state = static_cast<uint8_t>(State::kListen);
    i.tcpi_unacked = ready_count_.load();  // as Linux: the accept queue and its limit
    i.tcpi_sacked = backlog_.load();
    return give();
  }
  i.tcpi_state = static_cast<uint8_t>(connection_ ? connection_->state() : State::kClosed);
  if (!connection_) return give();
  const Connection& c = *connection_;
  const Scoreboard& b = c.scoreboard();
  const ConnectionStats& s = c.stats();
  uint32_t mss = std::max(c.mss(), 1u);
  Time now = Now();
  auto micros = [](Time t) { return static_cast<uint32_t>(std::max<Time>(t, 0) / kMicrosecond); };
  auto millis_since = [now](Time t) { return static_cast<uint32_t>((now - t) / kMillisecond); };
  auto segments = [mss](uint32_t bytes) { return (bytes + mss - 1) / mss; };
  i.tcpi_ca_state = c.recovery_state();
  i.tcpi_retransmits = static_cast<uint8_t>(std::min(c.backoff(), 255u));
  i.tcpi_backoff = i.tcpi_retransmits;
  if (c.timestamps()) i.tcpi_options |= TCPI_OPT_TIMESTAMPS;
  if (c.sack()) i.tcpi_options |= TCPI_OPT_SACK;
  if (c.window_scaling()) i.tcpi_options |= TCPI_OPT_WSCALE;
  if (c.ecn()) i.tcpi_options |= TCPI_OPT_ECN;
  if (c.syn_data_acked()) i.tcpi_options |= TCPI_OPT_SYN_DATA;
  i.tcpi_snd_wscale = c.send_scale();
  i.tcpi_rcv_wscale = c.receive_scale();
  i.tcpi_rto = micros(c.rtt().Backoff(c.backoff()));
  i.tcpi_ato = micros(Connection::kDelayedAck);
  i.tcpi_snd_mss = c.mss();
  i.tcpi_rcv_mss = c.receive_mss();
  i.tcpi_unacked = segments(c.snd_nxt() - c.snd_una());
  i.tcpi_sacked = segments(b.sacked());
  i.tcpi_lost = segments(b.lost());
  i.tcpi_last_data_sent = millis_since(c.last_data_sent());
  i.tcpi_last_data_recv = millis_since(c.last_data_received());
  i.tcpi_last_ack_recv = millis_since(c.last_received());
  i.tcpi_pmtu = c.path_mtu() + (id_.remote.is_ipv4() ? 20 : 40);
  i.tcpi_rcv_ssthresh = c.receive_window();
  i.tcpi_rtt = micros(c.rtt().srtt());
  i.tcpi_rttvar = micros(c.rtt().rttvar());
  i.tcpi_snd_ssthresh = c.congestion().ssthresh() / mss;
  i.tcpi_snd_cwnd = c.congestion().cwnd() / mss;
  i.tcpi_advmss = c.advertised_mss();
  i.tcpi_reordering = 3;
  i.tcpi_rcv_space = c.receive_buffer();
  i.tcpi_total_retrans = s.retransmissions;
  i.tcpi_max_pacing_rate = ~uint64_t{0};
  i.tcpi_pacing_rate = ~uint64_t{0};
  i.tcpi_bytes_acked = s.bytes_acked;
  i.tcpi_bytes_received = s.bytes_received;
  i.tcpi_segs_out = s.segments_out;
  i.tcpi_segs_in = s.segments_in;
  i.tcpi_notsent_bytes = c.unsent();
  i.tcpi_min_rtt = micros(b.min_rtt());
  i.tcpi_data_segs_in = s.data_segments_in;
  i.tcpi_data_segs_out = s.data_segments_out;
  i.tcpi_bytes_sent = s.bytes_sent;
  i.tcpi_bytes_retrans = s.bytes_retransmitted;
  i.tcpi_dsack_dups = s.dsack_duplicates;
  i.tcpi_reord_seen = b.reordering_seen() ? 1 : 0;
  i.tcpi_rcv_ooopack = s.out_of_order;
  i.tcpi_snd_wnd = c.send_window();
  return give();
}

}  // namespace redoubt::netstack::tcp
