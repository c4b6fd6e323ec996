// The retransmission time-out (RFC 6298).
#ifndef REDOUBT_PKG_NETSTACK_TCP_RTT_H_
#define REDOUBT_PKG_NETSTACK_TCP_RTT_H_

#include <algorithm>

#include "pkg/netstack/clock/clock.h"

namespace redoubt::netstack::tcp {

// A value; times in nanoseconds.
class RttEstimator final {
 public:
  // Linux's bounds (TCP_RTO_MIN, TCP_RTO_MAX), below the second of RFC 6298 section 2.4, and its initial value.
  static constexpr Time kMinRto = 200 * kMillisecond;
  static constexpr Time kMaxRto = 120 * kSecond;
  static constexpr Time kInitialRto = kSecond;

  void OnSample(Time rtt) {
    if (srtt_ < 0) {
      srtt_ = rtt;
      rttvar_ = rtt / 2;
      return;
    }
    Time delta = rtt > srtt_ ? rtt - srtt_ : srtt_ - rtt;
    rttvar_ += (delta - rttvar_) / 4;
    srtt_ += (rtt - srtt_) / 8;
  }

  bool has_sample() const { return srtt_ >= 0; }
  Time srtt() const { return std::max<Time>(srtt_, 0); }
  Time rttvar() const { return rttvar_; }
  // Without back-off.
  Time rto() const {
    if (srtt_ < 0) return kInitialRto;
    // As Linux: the lower bound is on the variance term, so that a delayed ACK does not fire the timer.
    return std::min(srtt_ + std::max(4 * rttvar_, kMinRto), kMaxRto);
  }
  // After `n` time-outs in a row.
  Time Backoff(uint32_t n) const { return std::min(rto() << std::min(n, 16u), kMaxRto); }

 private:
  Time srtt_ = -1;
  Time rttvar_ = 0;
};

}  // namespace redoubt::netstack::tcp

#endif  // REDOUBT_PKG_NETSTACK_TCP_RTT_H_
