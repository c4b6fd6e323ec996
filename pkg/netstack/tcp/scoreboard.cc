#include "pkg/netstack/tcp/scoreboard.h"

#include <algorithm>

#include "pkg/log/log.h"

namespace redoubt::netstack::tcp {

using State = SentRange::State;

namespace {
// How long a smallest round-trip time counts: paths change (RFC 8985 section 6.2, step 1 leaves it open; Linux: 300 s).
constexpr Time kMinRttWindow = 300 * kSecond;
}  // namespace

uint32_t& Scoreboard::Counter(State state) {
  return state == State::kInFlight ? in_flight_ : state == State::kSacked ? sacked_ : lost_;
}

void Scoreboard::SetState(SentRange& r, State state) {
  Counter(r.state) -= r.length();
  r.state = state;
  Counter(r.state) += r.length();
}

void Scoreboard::OnSent(Seq start, Seq end, Time now) {
  if (head_ > 32 && head_ > ranges_.size() / 2) {
    ranges_.erase(ranges_.begin(), ranges_.begin() + static_cast<ptrdiff_t>(head_));
    hint_lost_ -= std::min(hint_lost_, head_);
    head_ = 0;
  }
  if (!empty() && ranges_.back().sent == now && ranges_.back().state == State::kInFlight &&
      !ranges_.back().retransmitted) {
    ranges_.back().end = end;
  } else {
    ranges_.push_back({start, end, now});
  }
  in_flight_ += end - start;
}

size_t Scoreboard::Find(Seq seq) const {
  auto it = std::upper_bound(ranges_.begin() + static_cast<ptrdiff_t>(head_), ranges_.end(), seq,
                             [](Seq s, const SentRange& r) { return SeqLt(s, r.end); });
  return static_cast<size_t>(it - ranges_.begin());
}

// Cuts range `i` in two at `at`, which lies within it. False if there are too many ranges.
bool Scoreboard::Split(size_t i, Seq at) {
  if (ranges_.size() - head_ >= kMaxRanges) return false;
  SentRange tail = ranges_[i];
  tail.start = at;
  ranges_[i].end = at;
  ranges_.insert(ranges_.begin() + static_cast<ptrdiff_t>(i) + 1, tail);
  if (hint_lost_ > i) hint_lost_++;
  return true;
}

// RFC 8985 section 6.2, RACK_sent_after(RACK, r): what RACK goes by, known to have arrived, left after the range.
bool Scoreboard::RackSentAfter(const SentRange& r) const {
  return rack_sent_ > r.sent || (rack_sent_ == r.sent && SeqGt(rack_end_, r.end));
}

// Steps 1 to 3 of RFC 8985 section 6.2 and the sample for RFC 6298, for a range not known to have arrived before.
void Scoreboard::Arrived(const SentRange& r, Time now, AckSummary& summary) {
  summary.delivered += r.length();
  Time rtt = now - r.sent;
  if (!r.retransmitted) {
    if (min_rtt_ < 0 || rtt <= min_rtt_ || now - min_rtt_since_ > kMinRttWindow) {
      min_rtt_ = rtt;
      min_rtt_since_ = now;
    }
    if (r.sent > summary.rtt_sent) {
      summary.rtt = rtt;
      summary.rtt_sent = r.sent;
    }
  }
  // An acknowledgement that comes sooner than any before is one of the first transmission.
  if (r.retransmitted && rtt < min_rtt_) return;
  if (rack_sent_ < r.sent || (rack_sent_ == r.sent && SeqLt(rack_end_, r.end))) {
    rack_sent_ = r.sent;
    rack_end_ = r.end;
    rack_rtt_ = rtt;
  }
  if (!fack_valid_ || SeqGt(r.end, fack_)) {
    fack_ = r.end;
    fack_valid_ = true;
  } else if (SeqLt(r.end, fack_) && !r.retransmitted) {
    reordering_seen_ = true;
  }
}

void Scoreboard::OnCumulativeAck(Seq una, Time now, AckSummary& summary) {
  while (!empty() && SeqLt(ranges_[head_].start, una)) {
    SentRange& r = ranges_[head_];
    Seq end = SeqMin(r.end, una);
    SentRange part = r;
    part.end = end;
    summary.acked += part.length();
    // In sequence order the cumulative part may repeat what RACK has seen: only what was not reported is news.
    if (r.state != State::kSacked) Arrived(part, now, summary);
    Counter(r.state) -= part.length();
    r.start = end;
    if (r.start == r.end) head_++;
  }
  if (hint_lost_ < head_) hint_lost_ = head_;
  if (empty()) {
    ranges_.clear();
    head_ = hint_lost_ = 0;
    // A connection that rests gives the memory of a large flight back.
    if (ranges_.capacity() > 64) ranges_.shrink_to_fit();
  }
}

void Scoreboard::OnSack(SeqRange block, Time now, AckSummary& summary) {
  for (size_t i = Find(block.start); i < ranges_.size() && SeqLt(ranges_[i].start, block.end); i++) {
    if (ranges_[i].state == State::kSacked) continue;
    if (SeqLt(ranges_[i].start, block.start)) {
      if (!Split(i, block.start)) continue;
      i++;
    }
    if (SeqGt(ranges_[i].end, block.end) && !Split(i, block.end)) return;
    SentRange& r = ranges_[i];
    Arrived(r, now, summary);
    SetState(r, State::kSacked);
    summary.newly_sacked += r.length();
    // Neighbours that were reported one after the other become one, so that the list stays short.
    if (i > head_ && ranges_[i - 1].state == State::kSacked) {
      ranges_[i - 1].end = r.end;
      ranges_.erase(ranges_.begin() + static_cast<ptrdiff_t>(i));
      if (hint_lost_ > i) hint_lost_--;
      i--;
    }
  }
}

void Scoreboard::OnDsackRound(bool dsack, Seq una, Seq nxt) {
  if (in_dsack_round_ && SeqGe(una, dsack_round_)) in_dsack_round_ = false;
  if (dsack && !in_dsack_round_) {
    in_dsack_round_ = true;
    dsack_round_ = nxt;
    if (window_multiplier_ < 64) window_multiplier_++;
    window_persist_ = 16;
  }
}

Time Scoreboard::DetectLoss(Time now, Time srtt, uint32_t mss, bool in_recovery, uint32_t* lost) {
  if (rack_sent_ < 0) return kNever;
  Time window = 0;
  if (reordering_seen_ || (!in_recovery && sacked_ < 3 * mss)) {
    window = std::min(window_multiplier_ * std::max<Time>(min_rtt_, 0) / 4, srtt);
  }
  Time look_again = kNever;
  for (size_t i = head_; i < ranges_.size(); i++) {
    SentRange& r = ranges_[i];
    if (r.state != State::kInFlight || !RackSentAfter(r)) continue;
    Time due = r.sent + rack_rtt_ + window;
    if (due <= now) {
      SetState(r, State::kLost);
      hint_lost_ = std::min(hint_lost_, i);
      *lost += r.length();
    } else {
      // The latest: by then all that are overdue are marked in one go.
      look_again = look_again == kNever ? due : std::max(look_again, due);
    }
  }
  if (*lost > 0 && !in_recovery && window_persist_ > 0 && --window_persist_ == 0) window_multiplier_ = 1;
  return look_again;
}

void Scoreboard::MarkFrontLost(uint32_t bytes) {
  if (empty() || ranges_[head_].state != State::kInFlight) return;
  if (ranges_[head_].length() > bytes) Split(head_, ranges_[head_].start + bytes);
  SetState(ranges_[head_], State::kLost);
  hint_lost_ = head_;
}

void Scoreboard::MarkAllLost() {
  bool reneged = !empty() && ranges_[head_].state == State::kSacked;
  for (size_t i = head_; i < ranges_.size(); i++) {
    SentRange& r = ranges_[i];
    if (r.state == State::kSacked && !reneged) continue;
    SetState(r, State::kLost);
  }
  hint_lost_ = head_;
}

const SentRange* Scoreboard::FirstLost() const {
  if (lost_ == 0) return nullptr;
  for (size_t i = std::max(head_, hint_lost_); i < ranges_.size(); i++) {
    if (ranges_[i].state == State::kLost) return &ranges_[i];
  }
  CHECK(false, "lost bytes without a lost range");
  return nullptr;
}

const SentRange* Scoreboard::LastUnsacked() const {
  for (size_t i = ranges_.size(); i > head_; i--) {
    if (ranges_[i - 1].state != State::kSacked) return &ranges_[i - 1];
  }
  return nullptr;
}

void Scoreboard::OnRetransmitted(const SentRange* range, uint32_t bytes, Time now) {
  size_t i = static_cast<size_t>(range - ranges_.data());
  if (bytes < ranges_[i].length()) Split(i, ranges_[i].start + bytes);
  SentRange& r = ranges_[i];
  SetState(r, State::kInFlight);
  r.sent = now;
  r.retransmitted = true;
  hint_lost_ = std::max(hint_lost_, i == hint_lost_ ? i + 1 : hint_lost_);
}

void Scoreboard::OnTailProbe(const SentRange* range, uint32_t bytes, Time now) {
  size_t i = static_cast<size_t>(range - ranges_.data());
  if (bytes < ranges_[i].length() && Split(i, ranges_[i].end - bytes)) i++;
  OnRetransmitted(&ranges_[i], bytes, now);
}

void Scoreboard::Clear() {
  ranges_ = {};
  head_ = hint_lost_ = 0;
  in_flight_ = sacked_ = lost_ = 0;
}

}  // namespace redoubt::netstack::tcp
