// Segments that arrive: RFC 9293 section 3.10.7.
#include <algorithm>

#include "pkg/netstack/tcp/connection.h"

namespace redoubt::netstack::tcp {

namespace {
constexpr uint8_t kQuickAcks = 16;
// RFC 7323 section 5.5: a timestamp older than 24 days says nothing.
constexpr Time kTimestampAge = 24 * 24 * 3600 * kSecond;
// How often a stranger's segment is answered (RFC 5961 section 7; Linux: tcp_invalid_ratelimit).
constexpr Time kChallengeInterval = 500 * kMillisecond;

// How many segments came as this one.
uint32_t Joined(const Segment& s) {
  if (s.segment_size == 0) return 1;
  return static_cast<uint32_t>((s.payload.size() + s.segment_size - 1) / s.segment_size);
}
}  // namespace

Connection::Verdict Connection::OnSegment(Time now, Segment& s) {
  if (state_ == State::kClosed) return Verdict::kDone;
  stats_.segments_in += Joined(s);
  if (state_ == State::kSynSent) {
    OnSynSent(now, s);
    if (state_ != State::kClosed) Output(now);
    return Verdict::kDone;
  }
  if (state_ == State::kTimeWait && s.Has(kSyn) && !s.Has(kRst) && !s.Has(kAck)) {
    // RFC 6191 section 2: within one tick of the timestamps' clock the sequence number decides.
    bool stamped = use_timestamps_ && s.options.timestamp;
    bool newer = stamped && s.options.ts_value != ts_recent_ ? SeqGt(s.options.ts_value, ts_recent_)
                                                             : SeqGt(s.seq, receive_.next());
    if (newer) return Verdict::kReuse;
  }
  if (!CheckSequence(now, s) || !CheckAck(now, s)) return Verdict::kDone;
  last_received_ = now;
  keep_probes_ = 0;
  if (state_ == State::kTimeWait) {
    if (s.Has(kFin)) end_deadline_ = now + kTimeWaitLength;  // our ACK was lost
    if (s.length() > 0) SendAck(now);
    return Verdict::kDone;
  }
  OnAck(now, s);
  if (state_ != State::kClosed && state_ != State::kTimeWait) {
    OnUrgent(s);
    OnData(now, s);
  }
  if (state_ != State::kClosed) Output(now);
  return Verdict::kDone;
}

// Section 3.10.7.3.
void Connection::OnSynSent(Time now, Segment& s) {
  if (s.Has(kAck) && (SeqLe(s.ack, iss_) || SeqGt(s.ack, snd_nxt_))) {
    if (!s.Has(kRst)) SendReset(s.ack, std::nullopt);
    return;
  }
  if (s.Has(kRst)) {
    if (s.Has(kAck)) Finish(ECONNREFUSED);
    return;
  }
  if (!s.Has(kSyn)) return;
  TakeSynOptions(s.options, s.Has(kAck));
  received_cookie_ = s.options.fast_open;
  if (use_timestamps_) {
    ts_recent_ = s.options.ts_value;
    ts_recent_set_ = now;
  }
  irs_ = s.seq;
  receive_.Start(irs_ + 1);
  // The window of our SYN, which was not scaled.
  rcv_edge_ = irs_ + 1 + std::min<uint32_t>(WindowSpace(), 0xffff);
  last_ack_sent_ = irs_ + 1;
  snd_wnd_ = max_snd_wnd_ = s.window;
  snd_wl1_ = s.seq;
  snd_wl2_ = s.ack;
  last_received_ = now;
  s.seq++;
  s.flags &= static_cast<uint8_t>(~kSyn);
  if (!s.Has(kAck)) {
    // Simultaneous open: the answer counts as SYN and ACK, and carries no data of ours.
    use_ecn_ = use_ecn_ && s.Has(kEce) && s.Has(kCwr);
    state_ = State::kSynReceived;
    snd_nxt_ = iss_ + 1;
    cookie_.reset();
    congestion_.Start(mss_);
    SendSyn(now);
    OnData(now, s);
    return;
  }
  use_ecn_ = use_ecn_ && s.Has(kEce) && !s.Has(kCwr);
  syn_acked_ = true;
  if (backoff_ == 0) rtt_.OnSample(now - syn_sent_);
  // Data in the SYN that was not taken goes out again (RFC 7413 section 4.2.2).
  uint32_t taken = s.ack - (iss_ + 1);
  syn_data_acked_ = taken > 0;
  send_.TrimFront(taken);
  send_base_ = snd_una_ = snd_nxt_ = s.ack;
  Establish(now);
  ack_now_ = true;
  OnUrgent(s);
  OnData(now, s);
  NoteRoom();
}

void Connection::ChallengeAck(Time now, const Segment& s) {
  if (now - challenge_sent_ < kChallengeInterval) return;
  challenge_sent_ = now;
  SendAck(now);
}

// Sequence number, RST and SYN. False if the segment is done with.
bool Connection::CheckSequence(Time now, Segment& s) {
  if (use_timestamps_ && !s.Has(kRst)) {
    // RFC 7323 section 3.2: a segment without the option is dropped, in silence.
    if (!s.options.timestamp) return false;
    if (SeqLt(s.options.ts_value, ts_recent_) && now - ts_recent_set_ < kTimestampAge) {
      if (!s.payload.empty() && use_sack_ && SeqLe(s.end(), receive_.next())) {
        dsack_ = {s.seq, s.seq + static_cast<Seq>(s.payload.size())};
        dsack_pending_ = true;
      }
      if (s.payload.empty()) {
        ChallengeAck(now, s);
      } else {
        SendAck(now);
      }
      return false;
    }
  }
  if (state_ == State::kSynReceived && s.Has(kSyn) && s.seq == irs_) {
    if (!s.Has(kAck)) {
      SendSyn(now);  // ours was lost
      return false;
    }
    s.seq++;  // the other half of a simultaneous open
    s.flags &= static_cast<uint8_t>(~kSyn);
  }
  if (SeqLt(s.end(), last_ack_sent_) || SeqGt(s.seq, SeqMax(rcv_edge_, receive_.next()))) {
    if (s.Has(kRst)) return false;
    if (state_ == State::kSynReceived && !s.Has(kAck)) return false;
    if (state_ == State::kTimeWait && s.Has(kFin)) end_deadline_ = now + kTimeWaitLength;
    if (!s.payload.empty() && SeqLt(s.seq, receive_.next())) {
      dsack_ = {s.seq, SeqMin(s.seq + static_cast<Seq>(s.payload.size()), receive_.next())};
      dsack_pending_ = use_sack_;
    }
    // What holds bytes or a probe is answered, or the sender would go on for ever; other than that only now and then.
    if (s.length() > 0 && !s.Has(kSyn)) {
      SendAck(now);
    } else {
      ChallengeAck(now, s);
    }
    return false;
  }
  if (s.Has(kRst)) {
    // RFC 5961 section 3.2.
    if (s.seq != receive_.next()) {
      ChallengeAck(now, s);
      return false;
    }
    if (state_ == State::kTimeWait) return false;  // RFC 1337
    Finish(state_ == State::kSynReceived && !syn_passive_ ? ECONNREFUSED
           : state_ == State::kCloseWait                  ? EPIPE
                                                          : ECONNRESET);
    return false;
  }
  if (s.Has(kSyn)) {
    ChallengeAck(now, s);  // RFC 5961 section 4.2
    return false;
  }
  // RFC 7323 section 4.3.
  if (use_timestamps_ && SeqLe(s.seq, last_ack_sent_) && SeqGe(s.options.ts_value, ts_recent_)) {
    ts_recent_ = s.options.ts_value;
    ts_recent_set_ = now;
  }
  return s.Has(kAck);
}

bool Connection::CheckAck(Time now, const Segment& s) {
  if (!syn_acked_) {
    if (SeqLe(s.ack, iss_) || SeqGt(s.ack, snd_nxt_)) {
      SendReset(s.ack, std::nullopt);
      return false;
    }
    syn_acked_ = true;
    snd_una_ = iss_ + 1;
    if (backoff_ == 0 && syn_sent_ >= 0) rtt_.OnSample(now - syn_sent_);
    // The window of a SYN is not scaled, that of what follows is.
    snd_wnd_ = uint32_t{s.window} << snd_scale_;
    max_snd_wnd_ = std::max(max_snd_wnd_, snd_wnd_);
    snd_wl1_ = s.seq;
    snd_wl2_ = s.ack;
    State state = state_;
    Establish(now);
    if (state != State::kSynReceived) state_ = state;  // shut down meanwhile, or a FIN came with the SYN
    return true;
  }
  // RFC 5961 section 5.2.
  if (SeqGt(s.ack, snd_nxt_) || SeqLt(s.ack, snd_una_ - max_snd_wnd_)) {
    ChallengeAck(now, s);
    return false;
  }
  return true;
}

void Connection::ProcessSack(Time now, const Segment& s, AckSummary& summary) {
  for (size_t i = 0; i < s.options.sack_count; i++) {
    SeqRange b = s.options.sack[i];
    if (!SeqLt(b.start, b.end)) continue;
    // RFC 2883 section 4: the first block reports a duplicate if it is acknowledged already, or lies within the second.
    bool within_second =
        s.options.sack_count > 1 && SeqGe(b.start, s.options.sack[1].start) && SeqLe(b.end, s.options.sack[1].end);
    if (i == 0 && (SeqLe(b.end, s.ack) || within_second)) {
      summary.dsack = true;
      stats_.dsack_duplicates++;
      continue;
    }
    if (SeqLt(b.start, s.ack) || SeqLt(b.start, snd_una_) || SeqGt(b.end, snd_nxt_)) continue;
    board_.OnSack(b, now, summary);
  }
}

void Connection::OnAck(Time now, const Segment& s) {
  uint32_t window = uint32_t{s.window} << snd_scale_;
  bool window_changed = false;
  AckSummary summary;
  if (SeqLt(s.ack, snd_una_)) return;
  // As RFC 9293 has it, but an ACK that moves SND.UNA always brings its window along: the old one counted from the
  // old SND.UNA, and would promise too much from the new (a retransmission has an old sequence number and the newest
  // ACK).
  if (SeqGt(s.ack, snd_una_) || SeqLt(snd_wl1_, s.seq) || (snd_wl1_ == s.seq && window > snd_wnd_)) {
    window_changed = window != snd_wnd_;
    snd_wnd_ = window;
    snd_wl1_ = s.seq;
    snd_wl2_ = s.ack;
    max_snd_wnd_ = std::max(max_snd_wnd_, window);
  }
  uint32_t prior_flight = snd_nxt_ - snd_una_;  // FlightSize of RFC 5681
  if (use_sack_ && s.options.sack_count > 0) ProcessSack(now, s, summary);
  bool fin_acked = false;
  if (SeqGt(s.ack, snd_una_)) {
    board_.OnCumulativeAck(s.ack, now, summary);
    uint32_t bytes = SeqMin(s.ack, DataEnd()) - send_base_;
    fin_acked = fin_sent_ && s.ack == DataEnd() + 1;
    send_.TrimFront(bytes);
    send_base_ += bytes;
    stats_.bytes_acked += bytes;
    snd_una_ = s.ack;
    backoff_ = 0;
    timeout_since_ = now;
    if (urgent_sent_ && SeqGe(snd_una_, snd_up_)) urgent_sent_ = false;
    if (recovery_ != Recovery::kFast) dup_acks_ = 0;
  } else if (!use_sack_ && s.length() == 0 && !window_changed && !board_.empty()) {
    if (dup_acks_ < 255) dup_acks_++;
    summary.delivered += mss_;
  }
  if (summary.rtt >= 0) {
    rtt_.OnSample(summary.rtt);
    congestion_.OnRttSample(summary.rtt, snd_una_, snd_nxt_);
  }
  uint32_t lost = 0;
  if (use_sack_) {
    board_.OnDsackRound(summary.dsack, snd_una_, snd_nxt_);
    reorder_deadline_ = board_.DetectLoss(now, rtt_.srtt(), mss_, recovery_ != Recovery::kOpen, &lost);
  } else if ((recovery_ == Recovery::kOpen && dup_acks_ == 3) ||
             (recovery_ == Recovery::kFast && summary.acked > 0 && SeqLt(snd_una_, recovery_end_))) {
    // RFC 6582 section 3.2: the third duplicate, or an ACK that shows the next hole. What arrived of the flight
    // leaves the count.
    if (summary.acked > 0)
      dup_acks_ -= std::min<uint8_t>(dup_acks_, static_cast<uint8_t>(std::min(summary.acked / mss_, 255u)));
    board_.MarkFrontLost(mss_);
    lost = board_.lost();
  }
  if (tlp_outstanding_ && SeqGe(s.ack, tlp_end_)) {
    // RFC 8985 section 7.4.2: a probe that sent old data again and was not a duplicate has repaired a loss.
    tlp_outstanding_ = false;
    if (tlp_retransmitted_ && !summary.dsack && recovery_ == Recovery::kOpen && lost == 0) {
      congestion_.BeginReduction(prior_flight, now);
      congestion_.EndReduction();
    }
  }
  UpdateRecovery(now, s, summary, lost, prior_flight);
  if (probe_ == Probe::kPersist && (snd_wnd_ > 0 || !board_.empty())) {
    // Output arms it again if the window still is too small.
    probe_ = Probe::kNone;
    probe_deadline_ = kNever;
    if (summary.acked == 0) backoff_ = 0;
  }
  if (summary.acked > 0 || summary.newly_sacked > 0 || board_.empty()) ArmRetransmission(now, true);
  TuneSend();
  NoteRoom();
  if (!fin_acked) return;
  switch (state_) {
    case State::kFinWait1:
      state_ = State::kFinWait2;
      if (orphan_) end_deadline_ = now + settings_.fin_wait2_timeout;
      events_ |= kEventWritable;
      break;
    case State::kClosing:
      EnterTimeWait(now);
      break;
    case State::kLastAck:
      Finish(0);
      break;
    default:
      break;
  }
}

void Connection::UpdateRecovery(Time now, const Segment& s, const AckSummary& summary, uint32_t lost,
                                uint32_t prior_flight) {
  bool past_end = use_sack_ ? SeqGe(snd_una_, recovery_end_) : SeqGt(snd_una_, recovery_end_) || board_.empty();
  bool ended = recovery_ != Recovery::kOpen && past_end;
  if (ended) {
    if (recovery_ != Recovery::kLoss) congestion_.EndReduction();
    recovery_ = Recovery::kOpen;
    dup_acks_ = 0;
  }
  // RFC 3168 section 6.1.2: once per window.
  if (use_ecn_ && s.Has(kEce) && recovery_ == Recovery::kOpen && SeqGt(s.ack, recovery_end_)) {
    congestion_.BeginReduction(prior_flight, now);
    recovery_ = Recovery::kCwr;
    recovery_end_ = snd_nxt_;
    cwr_pending_ = true;
  }
  if (lost > 0 && (recovery_ == Recovery::kOpen || recovery_ == Recovery::kCwr)) {
    if (recovery_ == Recovery::kOpen) congestion_.BeginReduction(prior_flight, now);
    recovery_ = Recovery::kFast;
    recovery_end_ = snd_nxt_;
    cwr_pending_ = use_ecn_;
    tlp_outstanding_ = false;
  }
  if (recovery_ == Recovery::kFast || recovery_ == Recovery::kCwr) {
    congestion_.OnReductionAck(summary.delivered, Pipe(), summary.acked > 0 && lost == 0);
  } else if (summary.acked > 0 && !ended) {
    uint32_t used = congestion_.in_slow_start() ? 2 * std::max(prior_flight, summary.acked) : prior_flight + mss_;
    congestion_.OnAck(summary.acked, used >= congestion_.cwnd() || recovery_ == Recovery::kLoss, now, rtt_.srtt());
  }
}

// RFC 6093: the pointer is to the byte after the urgent one, as all systems have it.
void Connection::OnUrgent(const Segment& s) {
  if (!s.Has(kUrg) || s.urgent == 0 || fin_received_) return;
  Seq at = s.seq + s.urgent - 1;
  if (SeqLt(at, HeadSeq()) || SeqLt(at, receive_.next())) return;
  if (urgent_ != Urgent::kNone && SeqLe(at, rcv_up_)) return;
  rcv_up_ = at;
  urgent_ = Urgent::kExpected;
  events_ |= kEventUrgent;
}

void Connection::TakeUrgentByte() {
  if (urgent_ != Urgent::kExpected || SeqLe(receive_.next(), rcv_up_)) return;
  receive_.readable().CopyOut(rcv_up_ - HeadSeq(), std::span(&urgent_byte_, 1));
  urgent_ = Urgent::kArrived;
  events_ |= kEventUrgentByte;
}

void Connection::OnData(Time now, Segment& s) {
  bool takes_data = state_ == State::kSynReceived || state_ == State::kEstablished || state_ == State::kFinWait1 ||
                    state_ == State::kFinWait2;
  if (s.payload.empty() && !s.Has(kFin)) return;
  if (!takes_data) {
    ack_now_ = true;  // after the FIN: sent again, since our ACK was lost
    return;
  }
  if (use_ecn_) {
    if (s.Has(kCwr)) ece_ = false;
    if (s.ecn == Ecn::kCe) {
      if (!ece_) ack_now_ = true;
      ece_ = true;
    }
  }
  uint32_t size = static_cast<uint32_t>(s.payload.size());
  Seq end = s.seq + size;
  if (s.Has(kFin)) {
    fin_pending_ = true;
    fin_seq_ = end;
  }
  if (SeqGt(end, rcv_edge_)) {
    // Beyond the window: not taken, and so neither is the FIN behind it.
    uint32_t surplus = std::min(size, end - rcv_edge_);
    s.payload.CapLength(size - surplus);
    if (surplus > 0 && s.Has(kFin)) fin_pending_ = false;
    ack_now_ = true;
  }
  if (size > 0) {
    const uint32_t segments = Joined(s);
    stats_.data_segments_in += segments;
    if (orphan_ && SeqGt(end, receive_.next())) {
      // Nobody is left to read it (RFC 9293 section 3.6.1).
      SendReset(snd_nxt_, receive_.next());
      Finish(ECONNRESET);
      return;
    }
    rcv_mss_ = std::max(rcv_mss_, std::min(s.segment_size != 0 ? s.segment_size : size, advertised_mss()));
    bool had_holes = receive_.has_holes();
    ReceiveQueue::Added added = receive_.Insert(s.seq, std::move(s.payload));
    if (added.duplicate.start != added.duplicate.end && use_sack_) {
      dsack_ = added.duplicate;
      dsack_pending_ = true;
    }
    if (added.in_order > 0) {
      stats_.bytes_received += added.in_order;
      last_data_received_ = now;
      unacked_ += added.in_order;
      events_ |= kEventReadable;
      TakeUrgentByte();
    }
    if (added.out_of_order) {
      stats_.out_of_order += segments;
      // The sender counts duplicates: one for each that came, of which the last is sent below.
      for (uint32_t i = 1; i < segments; i++) SendAck(now);
    }
    if (added.in_order == 0 || had_holes || added.duplicate.start != added.duplicate.end) {
      // RFC 5681 section 4.2: the sender must see holes, and their end, at once.
      ack_now_ = true;
      quick_acks_ = kQuickAcks;
    } else if (unacked_ >= 2 * rcv_mss_) {
      ack_now_ = true;
    } else if (quick_acks_ > 0 && !ping_pong_) {
      quick_acks_--;
      ack_now_ = true;
    } else if (ack_deadline_ == kNever) {
      ack_deadline_ = now + kDelayedAck;
    }
  }
  if (fin_pending_ && receive_.next() == fin_seq_) OnFin(now);
}

void Connection::OnFin(Time now) {
  fin_pending_ = false;
  fin_received_ = true;
  receive_.Advance(1);
  ack_now_ = true;
  events_ |= kEventReadable | kEventPeerClosed;
  switch (state_) {
    case State::kSynReceived:
    case State::kEstablished:
      state_ = State::kCloseWait;
      break;
    case State::kFinWait1:
      state_ = State::kClosing;
      break;
    case State::kFinWait2:
      EnterTimeWait(now);
      break;
    default:
      break;
  }
}

}  // namespace redoubt::netstack::tcp
