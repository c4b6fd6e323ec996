// How much may be in flight: NewReno (RFC 5681, RFC 6582) and CUBIC (RFC 9438), slow start by HyStart++ (RFC 9406),
// and reduction by PRR (RFC 6937).
#ifndef REDOUBT_PKG_NETSTACK_TCP_CONGESTION_H_
#define REDOUBT_PKG_NETSTACK_TCP_CONGESTION_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "pkg/netstack/clock/clock.h"
#include "pkg/netstack/tcp/seq.h"

namespace redoubt::netstack::tcp {

enum class CongestionAlgorithm : uint8_t { kReno, kCubic };
// By the names of TCP_CONGESTION (man 7 tcp): "reno", "cubic".
std::optional<CongestionAlgorithm> FindCongestionAlgorithm(std::string_view name);
std::string_view CongestionName(CongestionAlgorithm algorithm);

// Bytes throughout. Not thread-safe; part of a Connection.
class Congestion final {
 public:
  static constexpr uint32_t kInitialSegments = 10;  // RFC 6928
  static constexpr uint32_t kInfinite = 0x7fffffff;

  explicit Congestion(CongestionAlgorithm algorithm = CongestionAlgorithm::kCubic) : algorithm_(algorithm) {}

  CongestionAlgorithm algorithm() const { return algorithm_; }
  void SetAlgorithm(CongestionAlgorithm algorithm) { algorithm_ = algorithm, epoch_start_ = -1; }
  // With the connection's maximum segment size, when it is established; sets the initial window.
  void Start(uint32_t mss);
  void SetMss(uint32_t mss) { mss_ = mss; }

  uint32_t cwnd() const { return cwnd_; }
  uint32_t ssthresh() const { return ssthresh_; }
  bool in_slow_start() const { return cwnd_ < ssthresh_; }

  // `acked` bytes arrived, outside recovery. `limited`: the window, and not the application, kept more from being
  // sent (RFC 7661 in spirit: an unused window does not grow).
  void OnAck(uint32_t acked, bool limited, Time now, Time srtt);
  // A round-trip sample, for HyStart++; rounds are told apart by una and nxt.
  void OnRttSample(Time rtt, Seq una, Seq nxt);

  // A loss was detected or a mark echoed, with `in_flight` bytes outstanding: sets ssthresh and begins a proportional
  // reduction.
  void BeginReduction(uint32_t in_flight, Time now);
  // In a reduction: an acknowledgement for `delivered` bytes came while `pipe` are in flight, after which `advanced`
  // says whether it shows no further loss (the bound of RFC 6937: PRR-SSRB, else PRR-CRB).
  void OnReductionAck(uint32_t delivered, uint32_t pipe, bool advanced);
  void OnReductionSent(uint32_t bytes) { prr_out_ += bytes; }
  void EndReduction() { cwnd_ = ssthresh_; }
  // The retransmission timer fired; `first`: of this flight.
  void OnTimeout(uint32_t in_flight, bool first, Time now);
  // Nothing was sent for `idle`: RFC 5681 section 4.1 in the way of RFC 2861.
  void OnIdle(Time idle, Time rto);

 private:
  uint32_t Reduced(Time now, uint32_t in_flight);
  void CubicAck(uint32_t acked, Time now, Time srtt);

  CongestionAlgorithm algorithm_;
  uint32_t mss_ = 536;
  uint32_t cwnd_ = kInitialSegments * 536;
  uint32_t ssthresh_ = kInfinite;
  uint32_t acked_credit_ = 0;  // bytes acknowledged since the window last grew by a segment

  // PRR.
  uint32_t prr_delivered_ = 0, prr_out_ = 0, recover_flight_ = 0;

  // CUBIC: windows in segments, times in seconds.
  Time epoch_start_ = -1;
  double w_max_ = 0, w_est_ = 0, cwnd_epoch_ = 0, k_ = 0;

  // HyStart++.
  Time last_round_min_ = -1, round_min_ = -1, css_baseline_ = -1;
  Seq round_end_ = 0;
  uint8_t samples_ = 0;
  uint8_t css_rounds_ = 0;
  bool round_started_ = false;
  bool in_css_ = false;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_CONGESTION_H_
