#include "pkg/sentry/signal/signal.h"

#include <gtest/gtest.h>

namespace redoubt {
namespace {

constexpr SignalSet kAllSignals = ~SignalSet{0};

TEST(PendingSignals, StandardSignalsAreHeldOnce) {
  PendingSignals p;
  EXPECT_TRUE(p.Add(MakeKillInfo(SIGUSR1, SI_USER, 1, 0)));
  EXPECT_FALSE(p.Add(MakeKillInfo(SIGUSR1, SI_USER, 2, 0)));
  EXPECT_EQ(p.Take(kAllSignals)->si_pid, 1);
  EXPECT_FALSE(p.Take(kAllSignals));
  EXPECT_EQ(p.set(), 0u);
}

TEST(PendingSignals, RealtimeSignalsQueueInOrder) {
  PendingSignals p;
  for (int pid = 1; pid <= 3; pid++) EXPECT_TRUE(p.Add(MakeKillInfo(40, SI_QUEUE, pid, 0)));
  for (int pid = 1; pid <= 3; pid++) {
    EXPECT_NE(p.set() & SignalBit(40), 0u);
    EXPECT_EQ(p.Take(kAllSignals)->si_pid, pid);
  }
  EXPECT_EQ(p.set(), 0u);
}

TEST(PendingSignals, SynchronousFirstThenLowest) {
  PendingSignals p;
  p.Add(MakeSigInfo(SIGHUP, SI_USER));
  p.Add(MakeSigInfo(40, SI_USER));
  p.Add(MakeSigInfo(SIGSEGV, SI_KERNEL));
  EXPECT_EQ(p.Take(kAllSignals)->si_signo, SIGSEGV);
  EXPECT_EQ(p.Take(~SignalBit(SIGHUP))->si_signo, 40);
  EXPECT_EQ(p.Take(kAllSignals)->si_signo, SIGHUP);
}

TEST(PendingSignals, DiscardRemovesAll) {
  PendingSignals p;
  p.Add(MakeSigInfo(SIGCONT, SI_USER));
  p.Add(MakeSigInfo(SIGTERM, SI_USER));
  p.Discard(SignalBit(SIGCONT));
  EXPECT_EQ(p.set(), SignalBit(SIGTERM));
}

TEST(SignalStack, BaseIsOutside) {
  SignalStack s{.address = 0x1000, .flags = 0, .size = 0x1000};
  EXPECT_FALSE(s.Contains(0x1000));
  EXPECT_TRUE(s.Contains(0x2000));
  EXPECT_FALSE(s.Contains(0x2001));
}

}  // namespace
}  // namespace redoubt
