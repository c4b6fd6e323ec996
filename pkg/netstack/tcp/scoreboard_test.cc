#include "pkg/netstack/tcp/scoreboard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "pkg/netstack/tcp/congestion.h"
#include "pkg/netstack/tcp/rtt.h"

namespace redoubt::netstack::tcp {
namespace {

TEST(Rtt, Rfc6298) {
  RttEstimator r;
  EXPECT_EQ(r.rto(), kSecond);
  r.OnSample(400 * kMillisecond);
  EXPECT_EQ(r.srtt(), 400 * kMillisecond);
  EXPECT_EQ(r.rttvar(), 200 * kMillisecond);
  EXPECT_EQ(r.rto(), 1200 * kMillisecond);
  r.OnSample(480 * kMillisecond);
  EXPECT_EQ(r.srtt(), 410 * kMillisecond);    // 7/8 and 1/8
  EXPECT_EQ(r.rttvar(), 170 * kMillisecond);  // 3/4 and 1/4
  EXPECT_EQ(r.Backoff(1), 2 * r.rto());
  EXPECT_EQ(r.Backoff(30), RttEstimator::kMaxRto);
  for (int i = 0; i < 100; i++) r.OnSample(kMicrosecond);
  EXPECT_GE(r.rto(), RttEstimator::kMinRto);
}

TEST(Scoreboard, CountsStayTrue) {
  for (uint32_t seed = 0; seed < 300; seed++) {
    std::mt19937 rng(seed);
    Scoreboard b;
    Seq una = static_cast<Seq>(rng()), nxt = una;
    Time now = kSecond;
    for (int step = 0; step < 200; step++) {
      now += static_cast<Time>(rng() % 20) * kMillisecond;
      AckSummary summary;
      uint32_t flight = nxt - una;
      switch (rng() % 6) {
        case 0:
        case 1: {
          uint32_t n = 1 + static_cast<uint32_t>(rng() % 5000);
          b.OnSent(nxt, nxt + n, now);
          nxt += n;
          break;
        }
        case 2:
          if (flight > 0) {
            Seq to = una + 1 + static_cast<Seq>(rng() % flight);
            b.OnCumulativeAck(to, now, summary);
            ASSERT_EQ(summary.acked, to - una);
            ASSERT_LE(summary.delivered, summary.acked);
            una = to;
          }
          break;
        case 3:
          if (flight > 1) {
            Seq from = una + 1 + static_cast<Seq>(rng() % (flight - 1));
            Seq to = from + 1 + static_cast<Seq>(rng() % (nxt - from));
            uint32_t before = b.sacked();
            b.OnSack({from, to}, now, summary);
            ASSERT_EQ(b.sacked(), before + summary.newly_sacked);
            ASSERT_EQ(summary.delivered, summary.newly_sacked);
          }
          break;
        case 4: {
          uint32_t lost = 0, before = b.lost();
          b.DetectLoss(now, 10 * kMillisecond, 1000, rng() % 2 != 0, &lost);
          ASSERT_EQ(b.lost(), before + lost);
          if (rng() % 8 == 0) b.MarkAllLost();
          break;
        }
        case 5:
          while (const SentRange* r = b.FirstLost()) {
            if (rng() % 4 == 0) break;
            uint32_t n = std::min<uint32_t>(r->length(), 1000), before = b.lost();
            b.OnRetransmitted(r, n, now);
            ASSERT_EQ(b.lost(), before - n);
          }
          if (const SentRange* r = b.LastUnsacked(); r != nullptr && rng() % 4 == 0) {
            b.OnTailProbe(r, std::min<uint32_t>(r->length(), 1000), now);
          }
          break;
      }
      ASSERT_EQ(b.in_flight() + b.sacked() + b.lost(), nxt - una) << "seed " << seed << " step " << step;
      ASSERT_EQ(b.empty(), nxt == una);
      if (!b.empty()) {
        ASSERT_EQ(b.front().start, una);
      }
    }
  }
}

TEST(Scoreboard, RackWaitsAQuarterOfTheRoundTripOnlyWhileInDoubt) {
  Scoreboard b;
  Time t = kSecond;
  for (Seq i = 0; i < 6; i++) b.OnSent(i * 1000, i * 1000 + 1000, t + i);
  AckSummary s;
  Time now = t + 100 * kMillisecond;
  b.OnSack({1000, 2000}, now, s);
  uint32_t lost = 0;
  Time again = b.DetectLoss(now, 100 * kMillisecond, 1000, false, &lost);
  EXPECT_EQ(lost, 0u);
  EXPECT_NEAR(static_cast<double>(again - now), 25e6, 1000);
  // Three segments reported: no doubt any more.
  b.OnSack({1000, 4000}, now, s);
  b.DetectLoss(now, 100 * kMillisecond, 1000, false, &lost);
  EXPECT_EQ(lost, 1000u);
  EXPECT_EQ(b.FirstLost()->start, 0u);
}

TEST(Scoreboard, ReportsThatAreTakenBackAreForgotten) {
  Scoreboard b;
  b.OnSent(0, 3000, kSecond);
  AckSummary s;
  b.OnSack({1000, 3000}, 2 * kSecond, s);
  b.OnCumulativeAck(1000, 2 * kSecond, s);
  b.MarkAllLost();  // the first range is reported and yet not acknowledged
  EXPECT_EQ(b.sacked(), 0u);
  EXPECT_EQ(b.lost(), 2000u);
}

TEST(Congestion, SlowStartDoublesAndRenoAddsOne) {
  Congestion c(CongestionAlgorithm::kReno);
  c.Start(1000);
  EXPECT_EQ(c.cwnd(), 10'000u);
  for (int i = 0; i < 10; i++) c.OnAck(1000, true, kSecond, kMillisecond);
  EXPECT_EQ(c.cwnd(), 20'000u);
  c.BeginReduction(20'000, kSecond);
  EXPECT_EQ(c.ssthresh(), 10'000u);
  c.EndReduction();
  for (int i = 0; i < 10; i++) c.OnAck(1000, true, kSecond, kMillisecond);
  EXPECT_EQ(c.cwnd(), 11'000u);
  c.OnAck(100'000, false, kSecond, kMillisecond);  // not used, not grown
  EXPECT_EQ(c.cwnd(), 11'000u);
}

TEST(Congestion, CubicComesBackToItsMaximumAfterK) {
  // RFC 9438 section 4.2: after K = cbrt(W_max * (1 - beta) / C) seconds the window is W_max again.
  Congestion c(CongestionAlgorithm::kCubic);
  c.Start(1000);
  while (c.cwnd() < 100'000) c.OnAck(1000, true, kSecond, 100 * kMillisecond);
  c.BeginReduction(100'000, kSecond);
  c.EndReduction();
  EXPECT_EQ(c.cwnd(), 70'000u);
  double k = std::cbrt(100 * 0.3 / 0.4);
  Time t = 10 * kSecond, end = t + static_cast<Time>(k * kSecond);
  uint32_t half = 0;
  for (; t < end; t += 100 * kMillisecond) {
    uint32_t cwnd = c.cwnd();
    for (uint32_t sent = 0; sent < cwnd; sent += 1000) c.OnAck(1000, true, t, 100 * kMillisecond);
    if (t < end - static_cast<Time>(k / 2 * kSecond)) half = c.cwnd();
  }
  EXPECT_NEAR(c.cwnd(), 100'000, 4000);
  EXPECT_GT(half, 93'000u);  // concave: most of the way in the first half
}

TEST(Congestion, HyStartLeavesSlowStartWhenDelayGrows) {
  // RFC 9406: rounds of 10 ms, then of 20.
  Congestion c;
  c.Start(1000);
  Seq una = 0;
  bool left = false;
  for (int round = 0; round < 20 && !left; round++) {
    Time rtt = (round < 4 ? 10 : 20) * kMillisecond;
    uint32_t cwnd = c.cwnd();
    for (uint32_t sent = 0; sent < cwnd; sent += 1000) {
      c.OnRttSample(rtt, una, una + cwnd);
      una += 1000;
      c.OnAck(1000, true, kSecond, rtt);
    }
    left = !c.in_slow_start();
  }
  EXPECT_TRUE(left);
  EXPECT_LT(c.cwnd(), 2'000'000u);
}

TEST(Congestion, PrrSpreadsTheReduction) {
  // RFC 6937: after a flight of 20 segments is acknowledged one by one, about half have been sent.
  Congestion c(CongestionAlgorithm::kReno);
  c.Start(1000);
  while (c.cwnd() < 20'000) c.OnAck(1000, true, kSecond, kMillisecond);
  c.BeginReduction(20'000, kSecond);
  uint32_t pipe = 19'000, sent = 0;
  for (int i = 0; i < 19; i++) {
    pipe -= 1000;
    c.OnReductionAck(1000, pipe, false);
    while (pipe + 1000 <= c.cwnd()) {
      pipe += 1000;
      sent += 1000;
      c.OnReductionSent(1000);
    }
  }
  EXPECT_NEAR(sent, 10'000, 1500);
  EXPECT_LE(pipe, c.ssthresh() + 1000);
}

}  // namespace
}  // namespace redoubt::netstack::tcp
