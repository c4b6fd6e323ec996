#include "pkg/netstack/tcp/congestion.h"

#include <algorithm>
#include <cmath>

namespace redoubt::netstack::tcp {

namespace {

// RFC 9438 section 4.1 and 4.6.
constexpr double kCubicC = 0.4;
constexpr double kCubicBeta = 0.7;
constexpr double kCubicAlpha = 3.0 * (1 - kCubicBeta) / (1 + kCubicBeta);

// RFC 9406 section 4.2.
constexpr Time kMinRttThreshold = 4 * kMillisecond;
constexpr Time kMaxRttThreshold = 16 * kMillisecond;
constexpr int kMinRttDivisor = 8;
constexpr int kRttSamples = 8;
constexpr uint32_t kCssGrowthDivisor = 4;
constexpr int kCssRounds = 5;
constexpr uint32_t kSlowStartLimit = 8;  // L, in segments, without pacing

constexpr uint32_t kMaxWindow = 1u << 30;

}  // namespace

std::optional<CongestionAlgorithm> FindCongestionAlgorithm(std::string_view name) {
  if (name == "reno") return CongestionAlgorithm::kReno;
  if (name == "cubic") return CongestionAlgorithm::kCubic;
  return std::nullopt;
}

std::string_view CongestionName(CongestionAlgorithm algorithm) {
  return algorithm == CongestionAlgorithm::kReno ? "reno" : "cubic";
}

void Congestion::Start(uint32_t mss) {
  mss_ = mss;
  cwnd_ = kInitialSegments * mss;
  ssthresh_ = kInfinite;
}

void Congestion::OnRttSample(Time rtt, Seq una, Seq nxt) {
  if (!in_slow_start()) return;
  if (!round_started_ || SeqGe(una, round_end_)) {
    round_started_ = true;
    round_end_ = nxt;
    last_round_min_ = round_min_;
    round_min_ = -1;
    samples_ = 0;
    if (in_css_ && ++css_rounds_ >= kCssRounds) {
      ssthresh_ = cwnd_;
      in_css_ = false;
      return;
    }
  }
  round_min_ = round_min_ < 0 ? rtt : std::min(round_min_, rtt);
  if (samples_ < 255) samples_++;
  if (samples_ < kRttSamples) return;
  if (in_css_) {
    // The delay was a passing one after all.
    if (round_min_ < css_baseline_) in_css_ = false, css_baseline_ = -1;
  } else if (last_round_min_ >= 0) {
    Time threshold = std::clamp(last_round_min_ / kMinRttDivisor, kMinRttThreshold, kMaxRttThreshold);
    if (round_min_ >= last_round_min_ + threshold) {
      css_baseline_ = round_min_;
      in_css_ = true;
      css_rounds_ = 0;
    }
  }
}

void Congestion::OnAck(uint32_t acked, bool limited, Time now, Time srtt) {
  if (!limited || cwnd_ >= kMaxWindow) return;
  if (in_slow_start()) {
    uint32_t step = std::min(acked, kSlowStartLimit * mss_);
    if (in_css_) step /= kCssGrowthDivisor;
    cwnd_ = std::min(cwnd_ + step, std::max(ssthresh_, cwnd_));
    return;
  }
  if (algorithm_ == CongestionAlgorithm::kCubic) {
    CubicAck(acked, now, srtt);
    return;
  }
  acked_credit_ += acked;
  if (acked_credit_ >= cwnd_) {
    acked_credit_ -= cwnd_;
    cwnd_ += mss_;
  }
}

void Congestion::CubicAck(uint32_t acked, Time now, Time srtt) {
  double cwnd = static_cast<double>(cwnd_) / mss_;
  if (epoch_start_ < 0) {
    epoch_start_ = now;
    cwnd_epoch_ = cwnd;
    w_est_ = cwnd;
    if (w_max_ < cwnd) {
      w_max_ = cwnd;
      k_ = 0;
    } else {
      k_ = std::cbrt((w_max_ - cwnd) / kCubicC);
    }
  }
  double segments = static_cast<double>(acked) / mss_;
  double t = static_cast<double>(now - epoch_start_) / kSecond;
  double at = t + static_cast<double>(srtt) / kSecond - k_;
  double target = std::clamp(kCubicC * at * at * at + w_max_, cwnd, 1.5 * cwnd);
  // Section 4.3: never slower than a Reno of the same average would be.
  w_est_ += (w_est_ >= w_max_ ? 1.0 : kCubicAlpha) * segments / cwnd;
  double now_w = kCubicC * (t - k_) * (t - k_) * (t - k_) + w_max_;
  double next = now_w < w_est_ ? std::max(cwnd, w_est_) : cwnd + (target - cwnd) / cwnd * segments;
  cwnd_ = static_cast<uint32_t>(std::min(next * mss_, double{kMaxWindow}));
}

// The window after a congestion event.
uint32_t Congestion::Reduced(Time now, uint32_t in_flight) {
  // What was really used counts, if the window was not filled.
  double flight = std::min(std::max(in_flight, 2 * mss_), cwnd_);
  in_css_ = false;
  if (algorithm_ == CongestionAlgorithm::kReno) return std::max(static_cast<uint32_t>(flight / 2), 2 * mss_);
  double cwnd = static_cast<double>(cwnd_) / mss_;
  // Section 4.7, fast convergence.
  w_max_ = cwnd < w_max_ ? cwnd * (1 + kCubicBeta) / 2 : cwnd;
  epoch_start_ = -1;
  return std::max(static_cast<uint32_t>(flight * kCubicBeta), 2 * mss_);
}

void Congestion::BeginReduction(uint32_t in_flight, Time now) {
  recover_flight_ = std::max(in_flight, mss_);
  ssthresh_ = Reduced(now, in_flight);
  prr_delivered_ = prr_out_ = 0;
  acked_credit_ = 0;
}

void Congestion::OnReductionAck(uint32_t delivered, uint32_t pipe, bool advanced) {
  prr_delivered_ += delivered;
  int64_t send;
  if (pipe > ssthresh_) {
    send =
        static_cast<int64_t>((uint64_t{prr_delivered_} * ssthresh_ + recover_flight_ - 1) / recover_flight_) - prr_out_;
  } else {
    int64_t limit = int64_t{prr_delivered_} - prr_out_;
    if (advanced) limit = std::max<int64_t>(limit, delivered) + mss_;
    send = std::min<int64_t>(int64_t{ssthresh_} - pipe, limit);
  }
  // The first retransmission goes out whatever the count says.
  if (prr_out_ == 0) send = std::max<int64_t>(send, mss_);
  cwnd_ = pipe + static_cast<uint32_t>(std::max<int64_t>(send, 0));
}

void Congestion::OnTimeout(uint32_t in_flight, bool first, Time now) {
  if (first) ssthresh_ = Reduced(now, in_flight);
  cwnd_ = mss_;
  acked_credit_ = 0;
}

void Congestion::OnIdle(Time idle, Time rto) {
  uint32_t initial = kInitialSegments * mss_;
  if (idle < rto || cwnd_ <= initial) return;
  ssthresh_ = std::max(ssthresh_, cwnd_ / 4 * 3);
  for (; idle > rto && cwnd_ > initial; idle -= rto) cwnd_ /= 2;
  cwnd_ = std::max(cwnd_, initial);
  epoch_start_ = -1;
}

}  // namespace redoubt::netstack::tcp
