// What has been sent and not yet acknowledged, and which of it is lost: SACK (RFC 2018), RACK (RFC 8985 section 6).
#ifndef REDOUBT_PKG_NETSTACK_TCP_SCOREBOARD_H_
#define REDOUBT_PKG_NETSTACK_TCP_SCOREBOARD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

// Sequence numbers sent at one time. Ranges follow each other without gaps from SND.UNA to SND.NXT.
struct SentRange {
  enum class State : uint8_t { kInFlight, kSacked, kLost };

  Seq start;
  Seq end;
  Time sent;  // the last time
  State state = State::kInFlight;
  bool retransmitted = false;

  uint32_t length() const { return end - start; }
};

// What one acknowledgement says about the ranges.
struct AckSummary {
  uint32_t acked = 0;      // bytes that SND.UNA moved by
  uint32_t delivered = 0;  // bytes newly known to have arrived, in order or not
  uint32_t newly_sacked = 0;
  Time rtt = -1;       // of the range sent last among those that were sent once; -1: no sample
  Time rtt_sent = -1;  // when that was
  bool dsack = false;
};

// Not thread-safe; part of a Connection. Takes no memory while nothing is in flight for the first time; bounded by
// kMaxRanges.
class Scoreboard final {
 public:
  static constexpr size_t kMaxRanges = 4096;

  // Sequence numbers [end of the last range, end) leave now.
  void OnSent(Seq start, Seq end, Time now);
  // Everything before `una` has arrived.
  void OnCumulativeAck(Seq una, Time now, AckSummary& summary);
  // `block` has arrived; it lies within what is in flight.
  void OnSack(SeqRange block, Time now, AckSummary& summary);
  // RFC 8985 section 6.2, steps 4 and 5. Marks as lost what should have arrived by now. Returns the time at which to
  // look again, kNever if nothing is waited for. `srtt` bounds the reordering window.
  Time DetectLoss(Time now, Time srtt, uint32_t mss, bool in_recovery, uint32_t* lost);
  void OnDsackRound(bool dsack, Seq una, Seq nxt);

  // Marks the first `bytes` that are in flight or lost as lost: a third duplicate ACK without SACK (RFC 6582).
  void MarkFrontLost(uint32_t bytes);
  // After a retransmission time-out everything not reported is lost; reports are forgotten if the receiver seems to
  // have dropped what it reported (RFC 2018 section 8: the first range is reported and yet not acknowledged).
  void MarkAllLost();

  // The first lost range; null if there is none.
  const SentRange* FirstLost() const;
  // The last range that is not reported: what a tail loss probe sends again (RFC 8985 section 7.3).
  const SentRange* LastUnsacked() const;
  // [start, start + bytes) of the range is sent again.
  void OnRetransmitted(const SentRange* range, uint32_t bytes, Time now);
  // Its last `bytes` are: a tail loss probe.
  void OnTailProbe(const SentRange* range, uint32_t bytes, Time now);

  bool empty() const { return head_ == ranges_.size(); }
  const SentRange& front() const { return ranges_[head_]; }
  // Bytes believed to be in the network ("pipe", RFC 6675 section 4).
  uint32_t in_flight() const { return in_flight_; }
  uint32_t sacked() const { return sacked_; }
  uint32_t lost() const { return lost_; }
  bool reordering_seen() const { return reordering_seen_; }
  Time min_rtt() const { return min_rtt_; }
  void Clear();

 private:
  void Arrived(const SentRange& r, Time now, AckSummary& summary);
  size_t Find(Seq seq) const;  // the range that holds it
  bool Split(size_t i, Seq at);
  uint32_t& Counter(SentRange::State state);
  void SetState(SentRange& r, SentRange::State state);
  bool RackSentAfter(const SentRange& r) const;

  std::vector<SentRange> ranges_;
  size_t head_ = 0;  // those before it are gone
  uint32_t in_flight_ = 0, sacked_ = 0, lost_ = 0;
  size_t hint_lost_ = 0;  // no lost range before it

  // RFC 8985 section 5.3.
  Time rack_sent_ = -1;
  Seq rack_end_ = 0;
  Time rack_rtt_ = 0;
  Time min_rtt_ = -1;
  Time min_rtt_since_ = 0;
  Seq fack_ = 0;
  bool fack_valid_ = false;
  bool reordering_seen_ = false;
  uint8_t window_multiplier_ = 1;
  uint8_t window_persist_ = 0;
  Seq dsack_round_ = 0;
  bool in_dsack_round_ = false;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_SCOREBOARD_H_
