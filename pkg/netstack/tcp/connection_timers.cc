// The passing of time. Deadlines are fields; whoever owns the connection asks NextDeadline() and needs one timer.
#include <algorithm>

#include "pkg/netstack/tcp/connection.h"

namespace redoubt::netstack::tcp {

namespace {
constexpr Time kLeastTailProbe = 2 * kMillisecond;
constexpr Time kMaxAckDelay = 200 * kMillisecond;  // RFC 8985 section 7.2: TLP.max_ack_delay
}  // namespace

Time Connection::NextDeadline() const {
  return std::min({probe_deadline_, reorder_deadline_, ack_deadline_, keep_deadline_, end_deadline_, cork_deadline_});
}

void Connection::OnTimer(Time now) {
  if (end_deadline_ <= now) {
    Finish(0);
    return;
  }
  if (cork_deadline_ <= now) {
    cork_deadline_ = kNever;
    SendNew(now, true);
  }
  if (reorder_deadline_ <= now) {
    uint32_t lost = 0;
    uint32_t prior = snd_nxt_ - snd_una_;
    reorder_deadline_ = board_.DetectLoss(now, rtt_.srtt(), mss_, recovery_ != Recovery::kOpen, &lost);
    if (lost > 0) {
      UpdateRecovery(now, Segment(), AckSummary(), lost, prior);
      Output(now);
    }
  }
  if (probe_deadline_ <= now) {
    switch (probe_) {
      case Probe::kTimeout:
        OnRetransmissionTimeout(now);
        break;
      case Probe::kTailLoss:
        OnTailLossProbe(now);
        break;
      case Probe::kPersist:
        OnPersist(now);
        break;
      case Probe::kNone:
        probe_deadline_ = kNever;
    }
  }
  if (keep_deadline_ <= now) OnKeepalive(now);
  // Last: what was sent above may have taken the ACK along.
  if (ack_deadline_ <= now) {
    ping_pong_ = false;  // the answer did not come
    SendAck(now);
  }
}

bool Connection::TimedOut(Time now, Time since, uint32_t tries) const {
  if (settings_.user_timeout > 0) return now - since >= settings_.user_timeout;
  return tries >= (orphan_ ? settings_.orphan_retries : settings_.retries);
}

// For what is in flight now. `restart`: the time-out counts from now (RFC 6298 section 5.3), else from where it did.
void Connection::ArmRetransmission(Time now, bool restart) {
  if (board_.empty()) {
    if (probe_ != Probe::kPersist) {
      probe_ = Probe::kNone;
      probe_deadline_ = kNever;
    }
    return;
  }
  if (restart) {
    timeout_deadline_ = now + rtt_.Backoff(backoff_);
    if (settings_.user_timeout > 0 && backoff_ > 0) {
      timeout_deadline_ =
          std::min(timeout_deadline_, std::max(timeout_since_ + settings_.user_timeout, now + kMillisecond));
    }
  }
  probe_ = Probe::kTimeout;
  probe_deadline_ = timeout_deadline_;
  // RFC 8985 section 7.2.
  if (use_sack_ && recovery_ == Recovery::kOpen && board_.sacked() == 0 && !tlp_outstanding_ && rtt_.has_sample() &&
      backoff_ == 0) {
    Time probe = 2 * rtt_.srtt();
    if (board_.in_flight() <= mss_) probe += kMaxAckDelay;
    probe = std::max(probe, kLeastTailProbe);
    if (now + probe < probe_deadline_) {
      probe_ = Probe::kTailLoss;
      probe_deadline_ = now + probe;
    }
  }
}

void Connection::ArmPersist(Time now) {
  probe_ = Probe::kPersist;
  probe_deadline_ = now + rtt_.Backoff(backoff_);
}

void Connection::OnRetransmissionTimeout(Time now) {
  if (!syn_acked_) {
    uint8_t retries = syn_passive_ ? settings_.syn_ack_retries : settings_.syn_retries;
    bool late = settings_.user_timeout > 0 && now - timeout_since_ >= settings_.user_timeout;
    if (backoff_ >= retries || late) {
      Finish(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
      return;
    }
    backoff_++;
    if (state_ == State::kSynSent) {
      // The data of a fast open goes the ordinary way.
      syn_data_ = 0;
      snd_nxt_ = iss_ + 1;
    }
    State state = state_;
    if (state != State::kSynSent) state_ = State::kSynReceived;  // for the answer's form
    SendSyn(now);
    state_ = state;
    return;
  }
  if (board_.empty()) {
    probe_ = Probe::kNone;
    probe_deadline_ = kNever;
    return;
  }
  if (TimedOut(now, timeout_since_, backoff_)) {
    Finish(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
    return;
  }
  uint32_t in_flight = snd_nxt_ - snd_una_;
  bool first = recovery_ != Recovery::kLoss || backoff_ == 0;
  recovery_ = Recovery::kLoss;
  recovery_end_ = snd_nxt_;
  dup_acks_ = 0;
  tlp_outstanding_ = false;
  reorder_deadline_ = kNever;
  board_.MarkAllLost();
  congestion_.OnTimeout(in_flight, first, now);
  cwr_pending_ = use_ecn_;
  backoff_++;
  probe_ = Probe::kNone;  // sending arms it, with the back-off
  Output(now);
  if (probe_ == Probe::kNone) ArmRetransmission(now, true);
}

// RFC 8985 section 7.3: new data if there is any, else the last again, to get an ACK that shows what is missing.
void Connection::OnTailLossProbe(Time now) {
  probe_ = Probe::kTimeout;
  tlp_outstanding_ = true;
  tlp_retransmitted_ = false;
  Seq before = snd_nxt_;
  if (unsent() > 0) SendNew(now, false);
  if (snd_nxt_ == before) {
    if (const SentRange* last = board_.LastUnsacked()) {
      tlp_retransmitted_ = true;
      uint32_t length = std::min(last->length(), mss_);
      Seq start = last->end - length;
      stats_.retransmissions++;
      stats_.bytes_retransmitted += length;
      board_.OnTailProbe(last, length, now);
      EmitRange(now, start, length, true);
    }
  }
  tlp_end_ = snd_nxt_;
  ArmRetransmission(now, true);
}

void Connection::OnPersist(Time now) {
  // A peer may keep its window closed for as long as it answers, but not to a connection that nobody holds any more.
  if (TimedOut(now, timeout_since_, orphan_ ? backoff_ : keep_probes_)) {
    Finish(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
    return;
  }
  if (backoff_ < 16) backoff_++;
  probe_ = Probe::kNone;
  if (SendNew(now, true)) return;
  keep_probes_++;
  SendProbe(now);
  ArmPersist(now);
}

void Connection::ArmKeepalive(Time now) {
  keep_deadline_ = settings_.keepalive && synchronized() && state_ != State::kTimeWait
                       ? std::max(last_received_ + settings_.keep_idle, now)
                       : kNever;
}

void Connection::OnKeepalive(Time now) {
  Time idle = now - std::max(last_received_, last_data_sent_);
  // While data is on its way the retransmission timer watches.
  if (idle < settings_.keep_idle || !board_.empty() || unsent() > 0) {
    keep_deadline_ = now + (idle < settings_.keep_idle ? settings_.keep_idle - idle : settings_.keep_idle);
    return;
  }
  bool late = settings_.user_timeout > 0 ? idle >= settings_.user_timeout && keep_probes_ > 0
                                         : keep_probes_ >= settings_.keep_count;
  if (late) {
    SendReset(snd_nxt_, receive_.next());
    Finish(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
    return;
  }
  keep_probes_++;
  SendProbe(now);
  keep_deadline_ = now + settings_.keep_interval;
}

}  // namespace redoubt::netstack::tcp
