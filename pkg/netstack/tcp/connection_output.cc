// Segments that leave: RFC 9293 section 3.8.
#include <algorithm>

#include "pkg/netstack/tcp/connection.h"

namespace redoubt::netstack::tcp {

namespace {
constexpr uint32_t kMaxSuperSegment = 65535 - 60 - 60;  // an IP packet's payload without the largest headers
}  // namespace

void Connection::Output(Time now) {
  while (const SentRange* range = board_.FirstLost()) {
    uint32_t pipe = Pipe();
    uint32_t room = congestion_.cwnd() > pipe ? congestion_.cwnd() - pipe : 0;
    if (room < std::min(mss_, range->length()) && pipe > 0) break;
    Retransmit(now, *range, std::max(room, mss_));
  }
  while (SendNew(now, false)) {
  }
  bool waiting = synchronized() && (unsent() > 0 || (write_shut_ && !fin_sent_));
  if (waiting && board_.empty() && cork_deadline_ == kNever && probe_ == Probe::kNone) ArmPersist(now);
  if (ack_now_) SendAck(now);
}

// May a segment smaller than the maximum leave, that holds all there is? Nagle's rule (RFC 896) as Minshall changed
// it: not while another small one is on its way.
bool Connection::MaySendSmall(Time now, bool last) {
  if (last) return true;
  if (settings_.cork || more_) {
    if (cork_deadline_ == kNever) cork_deadline_ = now + kCorkLimit;
    return false;
  }
  if (settings_.nodelay || (urgent_sent_ && SeqGt(snd_up_, snd_nxt_))) return true;
  return SeqLe(small_end_, snd_una_);
}

// Sends one segment of new data, or the FIN. `force`: whatever fits into the window, however small. False if nothing
// may be sent.
bool Connection::SendNew(Time now, bool force) {
  if (state_ == State::kSynSent || state_ == State::kClosed || state_ == State::kTimeWait ||
      (!syn_acked_ && !fast_opened_)) {
    return false;
  }
  uint32_t available = unsent();
  bool fin = write_shut_ && !fin_sent_;
  if (available == 0 && !fin) return false;
  int32_t usable = SeqDiff(snd_una_ + snd_wnd_, snd_nxt_);
  uint32_t window = usable > 0 ? static_cast<uint32_t>(usable) : 0;
  if (window == 0) return false;
  uint32_t mss = PayloadPerSegment();
  uint32_t length = std::min(available, window);
  if (available > 0) {
    length = std::min(length, PayloadPerSend());
    uint32_t pipe = Pipe();
    uint32_t room = congestion_.cwnd() > pipe ? congestion_.cwnd() - pipe : 0;
    if (!force && room < length) {
      if (room < mss) {
        if (pipe > 0) return false;
        room = mss;
      }
      length = std::min(length, room / mss * mss);
    }
    uint32_t tail = length % mss;
    if (tail > 0 && !force) {
      bool may = length == available ? MaySendSmall(now, fin)
                                     // A window's rest is worth a segment if it is half of the largest (RFC 9293
                                     // section 3.8.6.2.1).
                                     : length < mss && length >= max_snd_wnd_ / 2;
      if (!may) length -= tail;
      if (length == 0) return false;
    }
    if (length % mss != 0) small_end_ = snd_nxt_ + length;
  }
  if (length == available) cork_deadline_ = kNever;
  bool with_fin = fin && length == available && window > length;
  if (length == 0 && !with_fin) return false;
  Seq start = snd_nxt_;
  snd_nxt_ += length + (with_fin ? 1 : 0);
  if (with_fin) fin_sent_ = true;
  board_.OnSent(start, snd_nxt_, now);
  if (recovery_ == Recovery::kFast || recovery_ == Recovery::kCwr) congestion_.OnReductionSent(length);
  EmitRange(now, start, snd_nxt_ - start, false);
  last_data_sent_ = now;
  bool running = probe_ == Probe::kTimeout || probe_ == Probe::kTailLoss;
  if (!running) timeout_since_ = now;
  ArmRetransmission(now, !running);
  return true;
}

void Connection::Retransmit(Time now, const SentRange& range, uint32_t limit) {
  uint32_t mss = PayloadPerSegment();
  uint32_t length = std::min({range.length(), std::max(limit / mss * mss, mss), PayloadPerSend()});
  Seq start = range.start;
  board_.OnRetransmitted(&range, length, now);
  if (recovery_ == Recovery::kFast || recovery_ == Recovery::kCwr) congestion_.OnReductionSent(length);
  stats_.retransmissions++;
  stats_.bytes_retransmitted += length;
  EmitRange(now, start, length, true);
  if (probe_ == Probe::kNone) ArmRetransmission(now, true);
}

// Bytes [start, start + length) as one segment; what lies behind the data is the FIN.
void Connection::EmitRange(Time now, Seq start, uint32_t length, bool retransmission) {
  Segment s;
  Seq data_end = SeqMin(start + length, DataEnd());
  uint32_t size = data_end - start;
  s.seq = start;
  s.flags = kAck;
  if (start + length != data_end) s.flags |= kFin;
  if (size > 0 && data_end == DataEnd()) s.flags |= kPsh;
  if (urgent_sent_ && SeqGt(snd_up_, start) && snd_up_ - start <= 0xffff) {
    s.flags |= kUrg;
    s.urgent = static_cast<uint16_t>(snd_up_ - start);
  }
  if (use_ecn_ && size > 0 && !retransmission) {
    s.ecn = Ecn::kEct0;
    if (cwr_pending_) s.flags |= kCwr;
    cwr_pending_ = false;
  }
  uint32_t mss = PayloadPerSegment();
  if (size > mss) s.segment_size = static_cast<uint16_t>(mss);
  s.payload = send_.Slice(start - send_base_, size);
  // An answer that takes the ACK along: the conversation goes to and fro, and ACKs may wait for the next one.
  if (size > 0 && unacked_ > 0) ping_pong_ = true;
  stats_.data_segments_out++;
  stats_.bytes_sent += size;
  Fill(now, s);
  Send(s);
}

// Payload that fits beside the options of the next segment.
uint32_t Connection::PayloadPerSegment() const {
  if (!use_sack_ || (!receive_.has_holes() && !dsack_pending_)) return mss_;
  size_t blocks = std::min<size_t>(receive_.piece_count() + (dsack_pending_ ? 1 : 0), use_timestamps_ ? 3 : 4);
  return mss_ - std::min<uint32_t>(static_cast<uint32_t>(4 + 8 * blocks), mss_ / 2);
}

// Payload of the largest super-segment, whole segments.
uint32_t Connection::PayloadPerSend() const {
  uint32_t mss = PayloadPerSegment();
  if (config_.gso_max <= mss + kMaxHeaderSize) return mss;
  uint32_t super = std::min<uint32_t>(config_.gso_max - kMaxHeaderSize, kMaxSuperSegment);
  return std::max(super / mss * mss, mss);
}

void Connection::SendSyn(Time now) {
  Segment s;
  s.seq = iss_;
  s.flags = kSyn;
  bool answer = state_ == State::kSynReceived;
  s.options.mss = static_cast<uint16_t>(advertised_mss());
  s.options.timestamp = answer ? use_timestamps_ : config_.timestamps;
  s.options.sack_permitted = answer ? use_sack_ : config_.sack;
  if (answer ? use_scaling_ : config_.window_scaling) s.options.window_scale = rcv_scale_;
  if (s.options.timestamp) {
    s.options.ts_value = Timestamp(now);
    s.options.ts_echo = answer ? ts_recent_ : 0;
  }
  if (answer) {
    s.flags |= kAck;
    s.ack = receive_.next();
    if (use_ecn_) s.flags |= kEce;
    if (backoff_ == 0) s.options.fast_open = cookie_;
    last_ack_sent_ = receive_.next();
    unacked_ = 0;
    ack_now_ = false;
    ack_deadline_ = kNever;
    rcv_edge_ = SeqMax(rcv_edge_, receive_.next() + std::min<uint32_t>(WindowSpace(), 0xffff));
  } else if (backoff_ == 0) {
    // Only the first SYN: a middlebox may be what keeps these from arriving.
    if (use_ecn_) s.flags |= kEce | kCwr;
    s.options.fast_open = cookie_;
    if (cookie_ && cookie_->length > 0 && !send_.empty()) {
      size_t room = advertised_mss() - std::min<size_t>(s.options.size(), advertised_mss());
      s.payload = send_.Slice(0, std::min<size_t>(room, 1400));
      syn_data_ = static_cast<uint32_t>(s.payload.size());
    }
    snd_nxt_ = iss_ + 1 + syn_data_;
  } else {
    use_ecn_ = false;
  }
  s.window = static_cast<uint16_t>(std::min<uint32_t>(WindowSpace(), 0xffff));
  syn_sent_ = now;
  Send(s);
  if (!answer || !syn_acked_) {
    probe_ = Probe::kTimeout;
    probe_deadline_ = now + rtt_.Backoff(backoff_);
  }
}

void Connection::SendAck(Time now) {
  Segment s;
  s.seq = snd_nxt_;
  s.flags = kAck;
  Fill(now, s);
  Send(s);
}

// A segment that must be answered, since its sequence number is old: a probe of the window or of life.
void Connection::SendProbe(Time now) {
  Segment s;
  s.seq = snd_una_ - 1;
  s.flags = kAck;
  Fill(now, s);
  Send(s);
}

void Connection::SendReset(Seq seq, std::optional<Seq> ack) {
  Segment s;
  s.seq = seq;
  s.flags = kRst;
  if (ack) {
    s.flags |= kAck;
    s.ack = *ack;
  }
  Send(s);
}

// What every segment after the SYN has: acknowledgement, window, options.
void Connection::Fill(Time now, Segment& s) {
  s.ack = receive_.next();
  s.window = TakeWindow(false);
  if (ece_) s.flags |= kEce;
  if (use_timestamps_) {
    s.options.timestamp = true;
    s.options.ts_value = Timestamp(now);
    s.options.ts_echo = ts_recent_;
  }
  if (use_sack_ && (dsack_pending_ || receive_.has_holes())) {
    size_t room = use_timestamps_ ? 3 : 4;
    if (dsack_pending_) s.options.sack[s.options.sack_count++] = dsack_;
    dsack_pending_ = false;
    size_t n = s.options.sack_count;
    s.options.sack_count =
        static_cast<uint8_t>(n + receive_.SackBlocks(std::span(s.options.sack).subspan(n, room - n)));
  }
  last_ack_sent_ = receive_.next();
  unacked_ = 0;
  ack_now_ = false;
  ack_deadline_ = kNever;
}

void Connection::Send(Segment& s) {
  stats_.segments_out++;
  sink_.Emit(s);
}

uint32_t Connection::WindowSpace() const {
  size_t used = receive_.readable().size();
  uint32_t limit = settings_.window_clamp == 0 ? receive_limit_ : std::min(receive_limit_, settings_.window_clamp);
  return used >= limit ? 0 : limit - static_cast<uint32_t>(used);
}

uint32_t Connection::WindowLeft() const {
  int32_t left = SeqDiff(rcv_edge_, receive_.next());
  return left > 0 ? static_cast<uint32_t>(left) : 0;
}

// The window to advertise. What was promised stays, and it grows only by steps worth having (RFC 9293 section
// 3.8.6.2.2).
uint16_t Connection::TakeWindow(bool syn) {
  uint32_t space = WindowSpace();
  uint32_t left = WindowLeft();
  if (space > left && space - left >= std::min(receive_limit_ / 2, rcv_mss_)) {
    left = std::min<uint32_t>(space, 0xffffu << rcv_scale_);
  }
  // Rounded down on the wire; the edge promised before stays good for what is on its way.
  uint32_t wire = std::min<uint32_t>(left >> rcv_scale_, 0xffff);
  rcv_edge_ = SeqMax(rcv_edge_, receive_.next() + (wire << rcv_scale_));
  return static_cast<uint16_t>(wire);
}

// After a read: has the window opened so far that the sender should know?
bool Connection::MayWindowUpdate() const {
  if (!synchronized() || fin_received_ || state_ == State::kTimeWait) return false;
  uint32_t space = WindowSpace();
  uint32_t left = WindowLeft();
  return left <= receive_limit_ / 2 && space > left && space - left >= std::min(receive_limit_ / 4, 2 * rcv_mss_);
}

}  // namespace redoubt::netstack::tcp
