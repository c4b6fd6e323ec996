// Opening, closing and the user's side.
#include "pkg/netstack/tcp/connection.h"

#include <algorithm>

#include "pkg/log/log.h"

namespace redoubt::netstack::tcp {

namespace {
constexpr uint32_t kDefaultMss = 536;  // RFC 9293 section 3.7.1, without the option
constexpr uint32_t kLeastMss = 48;  // a smaller one would make segments of nearly only headers (Linux: TCP_MIN_SND_MSS)
constexpr uint8_t kQuickAcks = 16;
// The round trip of a loopback is a few microseconds; a buffer for what is read in a shorter time than this would make
// reader and writer take turns.
constexpr Time kLeastTuneInterval = 100 * kMicrosecond;
}  // namespace

Connection::Connection(const Config& config, const Settings& settings, SegmentSink& sink)
    : config_(config),
      settings_(settings),
      sink_(sink),
      send_limit_(config.send_buffer),
      congestion_(config.congestion),
      receive_limit_(config.receive_buffer) {
  if (config.window_scaling) rcv_scale_ = WindowScale(config);
}

uint8_t Connection::WindowScale(const Config& config) {
  uint32_t space = std::max(config.receive_buffer, config.max_receive_buffer);
  uint8_t scale = 0;
  while (scale < 14 && (space >> scale) > 0xffff) scale++;
  return scale;
}

uint32_t Connection::advertised_mss() const {
  uint32_t mss = std::clamp<uint32_t>(config_.mtu - kHeaderSize, kLeastMss, 0xffff);
  return config_.max_segment == 0 ? mss : std::min<uint32_t>(mss, config_.max_segment);
}

void Connection::SetMss() {
  // RFC 6691: the option counts no options; what we send has the timestamp.
  uint32_t mss = std::clamp(advertised_mss(), kLeastMss, std::max(peer_mss_, kLeastMss));
  mss_ = mss - (use_timestamps_ ? kTimestampOptionSize : 0);
  congestion_.SetMss(mss_);
}

void Connection::TakeSynOptions(const Options& options, bool syn_ack) {
  peer_mss_ = options.mss.value_or(kDefaultMss);
  use_timestamps_ = config_.timestamps && options.timestamp;
  use_sack_ = config_.sack && options.sack_permitted;
  use_scaling_ = config_.window_scaling && options.window_scale.has_value();
  if (use_scaling_) {
    snd_scale_ = *options.window_scale;
  } else {
    snd_scale_ = rcv_scale_ = 0;
  }
  SetMss();
}

void Connection::Connect(Time now, Seq iss, std::optional<FastOpenCookie> cookie, Buffer data) {
  CHECK(state_ == State::kClosed, "a connection is opened twice");
  state_ = State::kSynSent;
  iss_ = snd_una_ = iss;
  snd_nxt_ = send_base_ = iss + 1;
  snd_up_ = small_end_ = iss;
  cookie_ = cookie;
  send_ = std::move(data);
  use_ecn_ = config_.ecn;
  timeout_since_ = now;
  SendSyn(now);
}

void Connection::Accept(Time now, Seq iss, Segment& syn, bool accept_data, std::optional<FastOpenCookie> reply_cookie) {
  CHECK(state_ == State::kClosed, "a connection is opened twice");
  state_ = State::kSynReceived;
  syn_passive_ = true;
  iss_ = snd_una_ = iss;
  snd_nxt_ = send_base_ = iss + 1;
  snd_up_ = small_end_ = iss;
  cookie_ = reply_cookie;
  TakeSynOptions(syn.options, false);
  use_ecn_ = config_.ecn && syn.Has(kEce) && syn.Has(kCwr);
  if (use_timestamps_) {
    ts_recent_ = syn.options.ts_value;
    ts_recent_set_ = now;
  }
  irs_ = syn.seq;
  receive_.Start(irs_ + 1);
  last_ack_sent_ = rcv_edge_ = irs_ + 1;
  snd_wnd_ = max_snd_wnd_ = syn.window;
  snd_wl1_ = syn.seq;
  snd_wl2_ = iss;
  timeout_since_ = last_received_ = now;
  congestion_.Start(mss_);
  if (accept_data) {
    fast_opened_ = true;
    rcv_edge_ = receive_.next() + WindowSpace();
    syn.seq++;
    OnData(now, syn);
  }
  SendSyn(now);
}

void Connection::AcceptCookie(Time now, Seq iss, const Segment& ack, const Options& syn_options) {
  CHECK(state_ == State::kClosed, "a connection is opened twice");
  state_ = State::kSynReceived;
  syn_passive_ = true;
  iss_ = snd_una_ = iss;
  snd_nxt_ = send_base_ = iss + 1;
  snd_up_ = small_end_ = iss;
  TakeSynOptions(syn_options, false);
  if (use_timestamps_) {
    ts_recent_ = ack.options.ts_value;
    ts_recent_set_ = now;
  }
  irs_ = ack.seq - 1;
  receive_.Start(ack.seq);
  last_ack_sent_ = ack.seq;
  rcv_edge_ = ack.seq + std::min<uint32_t>(WindowSpace(), 0xffff);
  snd_wl1_ = irs_;
  snd_wl2_ = iss;
  syn_sent_ = -1;  // no round-trip sample
  timeout_since_ = last_received_ = now;
}

void Connection::Establish(Time now) {
  state_ = State::kEstablished;
  events_ |= kEventConnected | kEventWritable;
  congestion_.Start(mss_);
  backoff_ = 0;
  probe_ = Probe::kNone;
  probe_deadline_ = kNever;
  recovery_end_ = snd_una_;
  tune_since_ = timeout_since_ = last_data_received_ = now;
  ArmKeepalive(now);
}

void Connection::EnterTimeWait(Time now) {
  state_ = State::kTimeWait;
  send_ = Buffer();
  board_.Clear();
  if (orphan_) receive_.Clear();
  probe_ = Probe::kNone;
  probe_deadline_ = reorder_deadline_ = keep_deadline_ = cork_deadline_ = kNever;
  end_deadline_ = now + kTimeWaitLength;
  events_ |= kEventClosed;
}

// The end. What has arrived stays readable.
void Connection::Finish(int error) {
  state_ = State::kClosed;
  send_ = Buffer();
  board_.Clear();
  if (orphan_) receive_.Clear();
  write_shut_ = true;
  ack_now_ = false;
  urgent_ = urgent_ == Urgent::kExpected ? Urgent::kNone : urgent_;
  probe_ = Probe::kNone;
  probe_deadline_ = reorder_deadline_ = ack_deadline_ = keep_deadline_ = end_deadline_ = cork_deadline_ = kNever;
  events_ |= kEventClosed | kEventReadable | kEventWritable;
  if (error != 0) {
    error_ = error;
    events_ |= kEventError;
  }
}

size_t Connection::SendRoom() const {
  if (write_shut_ || state_ == State::kClosed) return 0;
  return send_.size() >= send_limit_ ? 0 : send_limit_ - send_.size();
}

Result<> Connection::Write(Time now, Buffer data, bool more, bool urgent) {
  if (write_shut_ || state_ == State::kClosed) return Err(EPIPE);
  if (data.empty()) return {};
  if (board_.empty() && send_.empty() && rtt_.has_sample()) congestion_.OnIdle(now - last_data_sent_, rtt_.rto());
  send_.Append(std::move(data));
  more_ = more;
  if (urgent) {
    snd_up_ = DataEnd();
    urgent_sent_ = true;
  }
  Output(now);
  return {};
}

bool Connection::UrgentByteIsNext() const {
  return urgent_ != Urgent::kNone && !settings_.oob_inline && !receive_.readable().empty() && HeadSeq() == rcv_up_;
}

size_t Connection::Readable() const {
  size_t n = receive_.readable().size();
  if (urgent_ == Urgent::kNone) return n;
  int32_t to_mark = SeqDiff(rcv_up_, HeadSeq());
  if (to_mark > 0) return std::min<size_t>(n, static_cast<size_t>(to_mark));
  return UrgentByteIsNext() ? n - 1 : n;
}

bool Connection::AtUrgentMark() const { return urgent_ != Urgent::kNone && HeadSeq() == rcv_up_; }

Buffer Connection::Read(Time now, size_t n) {
  if (UrgentByteIsNext()) receive_.readable().TrimFront(1);
  Buffer out = receive_.readable().SplitFront(std::min(n, Readable()));
  if (urgent_ != Urgent::kNone && SeqGt(HeadSeq(), rcv_up_)) urgent_ = Urgent::kNone;
  if (out.empty()) return out;
  TuneReceive(now, out.size());
  if (MayWindowUpdate()) SendAck(now);
  return out;
}

void Connection::Unread(Buffer data) { receive_.readable().Prepend(std::move(data)); }

Result<std::byte> Connection::ReadUrgent(bool peek) {
  if (settings_.oob_inline || urgent_ == Urgent::kNone || urgent_ == Urgent::kRead) return Err(EINVAL);
  if (urgent_ == Urgent::kExpected) return Err(EAGAIN);
  if (!peek) urgent_ = Urgent::kRead;
  return urgent_byte_;
}

// Dynamic right-sizing: what the reader takes in a round trip is half of what the buffer should hold, so that the
// window never is the limit.
void Connection::TuneReceive(Time now, size_t read) {
  tune_read_ += read;
  Time round = rtt_.has_sample() ? std::max(rtt_.srtt(), kLeastTuneInterval) : kMillisecond;
  if (now - tune_since_ < round) return;
  if (!settings_.fixed_receive_buffer && tune_read_ > tune_last_) {
    uint64_t want = 2 * tune_read_ + 16 * uint64_t{rcv_mss_};
    receive_limit_ =
        static_cast<uint32_t>(std::max<uint64_t>(receive_limit_, std::min<uint64_t>(want, config_.max_receive_buffer)));
    tune_last_ = tune_read_;
  }
  tune_read_ = 0;
  tune_since_ = now;
}

void Connection::TuneSend() {
  if (settings_.fixed_send_buffer) return;
  // What is in flight, and as much again to follow it; the peer's window bounds that as well as the network's does.
  uint32_t flight = std::min({congestion_.cwnd(), max_snd_wnd_, Congestion::kInfinite / 2});
  uint32_t want = std::min(2 * flight, config_.max_send_buffer);
  send_limit_ = std::max(send_limit_, want);
}

void Connection::NoteRoom() {
  if (!want_room_ || !Writable()) return;
  want_room_ = false;
  events_ |= kEventWritable;
}

void Connection::Shutdown(Time now) {
  if (write_shut_) return;
  write_shut_ = true;
  switch (state_) {
    case State::kSynSent:
      Finish(0);
      return;
    case State::kSynReceived:
    case State::kEstablished:
      state_ = State::kFinWait1;
      break;
    case State::kCloseWait:
      state_ = State::kLastAck;
      break;
    default:
      return;
  }
  Output(now);
}

void Connection::Close(Time now) {
  if (orphan_) return;
  orphan_ = true;
  if (state_ == State::kClosed) {
    receive_.Clear();
    return;
  }
  bool unread = !receive_.readable().empty();
  if (state_ == State::kSynReceived || (unread && state_ != State::kTimeWait)) {
    Abort(now);
    return;
  }
  if (state_ == State::kTimeWait) receive_.Clear();
  Shutdown(now);
  if (state_ == State::kFinWait2) end_deadline_ = now + settings_.fin_wait2_timeout;
}

void Connection::Abort(Time now) {
  if (state_ != State::kClosed && state_ != State::kSynSent && state_ != State::kTimeWait) {
    SendReset(snd_nxt_, receive_.next());
  }
  Finish(0);
}

void Connection::Kill(int error) { Finish(error); }

void Connection::OnIcmpError(Time now, Seq seq, int error, bool hard) {
  if (SeqLt(seq, snd_una_) || SeqGe(seq, SeqMax(snd_nxt_, snd_una_ + 1))) return;
  switch (state_) {
    case State::kSynSent:
    case State::kSynReceived:
      // As Linux, soft errors end an attempt too: the user hears of an unreachable host at once.
      Finish(error);
      return;
    case State::kClosed:
    case State::kTimeWait:
      return;
    default:
      // RFC 5927 section 5.2: a synchronized connection takes all of them for soft.
      soft_error_ = error;
  }
}

void Connection::OnPathMtu(Time now, uint32_t mtu, bool resend) {
  bool smaller = mtu < config_.mtu;
  config_.mtu = mtu;
  SetMss();
  if (!smaller || !resend || !synchronized() || board_.empty()) return;
  // RFC 1191 section 6.5: sent again in smaller pieces, which is no sign of congestion.
  board_.MarkAllLost();
  Output(now);
}

void Connection::OnSettings(Time now) {
  if (state_ == State::kClosed || state_ == State::kSynSent) return;
  if (!settings_.cork) more_ = false;
  ArmKeepalive(now);
  if (synchronized()) Output(now);
}

void Connection::SetReceiveBuffer(Time now, uint32_t bytes) {
  settings_.fixed_receive_buffer = true;
  receive_limit_ = bytes;
  if (synchronized() && MayWindowUpdate()) SendAck(now);
}

void Connection::SetSendBuffer(uint32_t bytes) {
  settings_.fixed_send_buffer = true;
  send_limit_ = bytes;
  NoteRoom();
}

void Connection::SetQuickAck(Time now, bool on) {
  ping_pong_ = !on;
  if (!on) return;
  quick_acks_ = kQuickAcks;
  if (ack_deadline_ != kNever) SendAck(now);
}

uint32_t Connection::Pipe() const {
  uint32_t in_flight = board_.in_flight();
  // Without SACK each duplicate ACK says that one segment has left the network (RFC 5681 section 3.2, step 4).
  return use_sack_ ? in_flight : in_flight - std::min(in_flight, dup_acks_ * mss_);
}

}  // namespace redoubt::netstack::tcp
