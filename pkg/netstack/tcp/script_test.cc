// One script per behaviour; the section that asks for it stands beside.
#include "pkg/netstack/tcp/script.h"

#include <gtest/gtest.h>

namespace redoubt::netstack::tcp {
namespace {

struct Case {
  const char* name;
  const char* script;
};

const std::string kOpened = R"(
  connect
  > S 0+0 mss 1000 sackok
  +10ms
  < SA 0+0 ack 1 mss 1000 sackok win 60000
  > A 1+0 ack 1
  state established
)";

// With kOpened in front.
const Case kEstablished[] = {
    // RFC 9293 section 3.10.7.4
    {"DataInOrderIsAcknowledgedAndRead", R"(
  < PA 1+500 ack 1
  > A 1+0 ack 501 win 65035
  read 500
  readable 0
)"},
    {"TheFirstFlightIsTenSegments", R"(   # RFC 6928
  write 20000
  > A 1+1000
  > A 1001+1000
  > A 2001+1000
  > A 3001+1000
  > A 4001+1000
  > A 5001+1000
  > A 6001+1000
  > A 7001+1000
  > A 8001+1000
  > A 9001+1000
  cwnd 10
  +10ms
  < A 1+0 ack 2001
  > A 10001+1000          # slow start: two acknowledged, four may go
  > A 11001+1000
  > A 12001+1000
  > A 13001+1000
  cwnd 12
  +0ms
)"},
    {"NagleHoldsTheSecondSmallSegment", R"(   # RFC 9293 section 3.7.4
  write 100
  > PA 1+100
  write 100
  write 100
  < A 1+0 ack 101
  > PA 101+200
  < A 1+0 ack 301
)"},
    {"NoDelaySendsAtOnce", R"(
  set nodelay=1
  write 100
  > PA 1+100
  write 100
  > PA 101+100
  < A 1+0 ack 201
)"},
    {"CorkHoldsFor200Milliseconds", R"(   # man 7 tcp
  set cork=1
  write 100
  +199ms
  +1ms
  > PA 1+100
  < A 1+0 ack 101
  write 1100
  > A 101+1000
  < A 1+0 ack 1101
  set cork=0
  > PA 1101+100
  < A 1+0 ack 1201
)"},
    {"MoreIsCorkForOneCall", R"(   # man 2 send, MSG_MORE
  write 100 more
  write 100
  > PA 1+200
  < A 1+0 ack 201
)"},
    {"TheTimeoutDoublesAndGivesUp", R"(   # RFC 6298 section 5
  set retries=3
  rto 210
  write 100
  > PA 1+100
  +209ms
  +1ms
  > PA 1+100
  +419ms
  +1ms
  > PA 1+100
  +840ms
  > PA 1+100
  +1679ms
  state established
  +1ms
  error 110
  state closed
)"},
    {"FastRetransmitBySack", R"(   # RFC 6675, RFC 8985: three segments behind the hole
  write 6000
  any
  +10ms
  < A 1+0 ack 1 sack 1001-2001
  < A 1+0 ack 1 sack 1001-3001
  < A 1+0 ack 1 sack 1001-4001
  > A 1+1000
  in_flight 3000
  +10ms
  < A 1+0 ack 6001
  in_flight 0
  cwnd 4                # CUBIC: 0.7 of the six that were out
)"},
    {"TailLossProbe", R"(   # RFC 8985 section 7
  write 3000
  > A 1+1000
  > A 1001+1000
  > PA 2001+1000
  +19ms
  +1ms                  # two round trips
  > PA 2001+1000
  +10ms
  < A 1+0 ack 1 sack 2001-3001     # what left before the probe and has not come is lost
  > A 1+1000            # one for one (RFC 6937)
  +10ms
  < A 1+0 ack 1001 sack 2001-3001
  > A 1001+1000
  +10ms
  < A 1+0 ack 3001
)"},
    {"SackNamesTheNewestPieceFirst", R"(   # RFC 2018 section 4
  < A 1001+1000 ack 1
  > A 1+0 ack 1 sack 1001-2001
  < A 3001+1000 ack 1
  > A 1+0 ack 1 sack 3001-4001 1001-2001
  < A 2001+1000 ack 1
  > A 1+0 ack 1 sack 1001-4001
  < A 1+1000 ack 1
  > A 1+0 ack 4001
  readable 4000
)"},
    {"DuplicatesAreReported", R"(   # RFC 2883
  < A 1+1000 ack 1
  > A 1+0 ack 1001
  < A 1+1000 ack 1
  > A 1+0 ack 1001 sack 1-1001
  < A 501+1000 ack 1
  > A 1+0 ack 1501 sack 501-1001
)"},
    {"PeerCloses", R"(
  < FA 1+10 ack 1
  > A 1+0 ack 12
  state close_wait
  write 5
  > PA 1+5 ack 12
  < A 12+0 ack 6
  shutdown
  > FA 6+0 ack 12
  state last_ack
  < A 12+0 ack 7
  state closed
  error 0
)"},
    {"WeCloseAndWait", R"(
  shutdown
  > FA 1+0
  state fin_wait1
  < A 1+0 ack 2
  state fin_wait2
  < PA 1+100 ack 2
  > A 2+0 ack 101
  < FA 101+0 ack 2
  > A 2+0 ack 102
  state time_wait
  +30s
  < FA 101+0 ack 2        # our ACK was lost: again, and the wait begins anew
  > A 2+0 ack 102
  +59s
  state time_wait
  +1s
  state closed
)"},
    {"BothCloseAtOnce", R"(
  shutdown
  > FA 1+0
  < FA 1+0 ack 1
  > A 2+0 ack 2
  state closing
  < A 2+0 ack 2
  state time_wait
)"},
    {"AFinBehindAHoleWaits", R"(
  < FA 101+0 ack 1
  state established
  < A 1+100 ack 1
  > A 1+0 ack 102
  state close_wait
)"},
    {"AResetMustBeExact", R"(   # RFC 5961 section 3.2
  < R 5000+0
  > A 1+0 ack 1
  state established
  < R 70000+0           # outside of the window: nothing
  < R 1+0
  state closed
  error 104
)"},
    {"ASynInAConnectionIsChallenged", R"(   # RFC 5961 section 4.2
  < S 5000+0
  > A 1+0 ack 1
  < S 5000+0            # but not more than twice a second
  +500ms
  < S 1+0
  > A 1+0 ack 1
  state established
)"},
    {"AcksOutOfRangeAreChallenged", R"(   # RFC 5961 section 5.2
  < A 1+100 ack 5000
  > A 1+0 ack 1
  readable 0
  +1s
  < A 1+100 ack -70000
  > A 1+0 ack 1
  readable 0
)"},
    {"AZeroWindowIsProbed", R"(   # RFC 9293 section 3.8.6.1
  < A 1+0 ack 1 win 0
  write 500
  +210ms
  > A 0+0
  < A 1+0 ack 1 win 0
  +420ms
  > A 0+0
  +840ms
  > A 0+0
  < A 1+0 ack 1 win 5000
  > PA 1+500
  < A 1+0 ack 501
)"},
    {"ASillyWindowIsLeftAlone", R"(   # RFC 9293 section 3.8.6.2.1
  < A 1+0 ack 1 win 10
  write 500
  +209ms
  +1ms                  # the override time-out
  > A 1+10
  < A 1+0 ack 11 win 5000
  > PA 11+490
  < A 1+0 ack 501
)"},
    {"KeepalivesFindADeadPeer", R"(   # RFC 9293 section 3.8.4, man 7 tcp
  set keepalive=1 idle=10000 interval=1000 count=2
  +9900ms
  +100ms
  > A 0+0
  < A 1+0 ack 1
  +10s
  > A 0+0
  +1s
  > A 0+0
  +1s
  > RA 1+0
  state closed
  error 110
)"},
    {"TheUserTimeoutEndsIt", R"(   # RFC 5482
  set user_timeout=1000
  write 100
  > PA 1+100
  +990ms
  any
  state established
  +20ms
  any
  state closed
  error 110
)"},
    {"UrgentPointsBehindTheByte", R"(   # RFC 6093
  write 10 urgent
  > PAU 1+10 urg 10
  < A 1+0 ack 11
  < PAU 1+5 ack 11 urg 3
  > A 11+0 ack 6
  readable 2
  read 2
  urgent
  readable 2
  read 2
)"},
    {"DelayedAckForTheSecondQuestion", R"(   # RFC 1122 section 4.2.3.2
  < PA 1+10 ack 1
  > A 1+0 ack 11
  < PA 11+10 ack 1
  > A 1+0 ack 21
  < PA 21+10 ack 1
  > A 1+0 ack 31
)"},
    {"UnreadDataMakesCloseAReset", R"(   # RFC 2525 section 2.17
  < PA 1+10 ack 1
  > A 1+0 ack 11
  close
  > RA 1+0
  state closed
)"},
    {"DataAfterCloseIsReset", R"(   # RFC 9293 section 3.6.1
  close
  > FA 1+0
  < A 1+0 ack 2
  < PA 1+10 ack 2
  > RA 2+0
  state closed
)"},
    {"AnOrphanDoesNotWaitForEver", R"(
  close
  > FA 1+0
  < A 1+0 ack 2
  state fin_wait2
  +60s
  state closed
)"},
    {"AForgedIcmpErrorIsIgnored", R"(   # RFC 5927
  write 100
  > PA 1+100
  icmp 5000 113
  icmp 1 113            # in flight, and yet soft: remembered only
  state established
  < A 1+0 ack 101
)"},
    {"ASmallerPathSendsAgainInPieces", R"(   # RFC 1191
  write 2000
  > A 1+1000
  > PA 1001+1000
  mtu 620
  > A 1+600
  > A 601+600
  > A 1201+600
  > PA 1801+200
  < A 1+0 ack 2001
)"},
};

const Case kWhole[] = {
    {"Refused", R"(
  connect
  > S 0+0
  < RA 0+0 ack 1
  state closed
  error 111
)"},
    {"AnOldDuplicateSynAckIsReset", R"(   # RFC 9293 section 3.5.1, figure 8
  connect
  > S 0+0
  < SA 0+0 ack 91
  > R 91+0
  state syn_sent
)"},
    {"TheSynIsSentSevenTimes", R"(   # tcp_syn_retries
  connect
  > S 0+0
  +63s
  > S 0+0
  > S 0+0
  > S 0+0
  > S 0+0
  > S 0+0
  > S 0+0
  state syn_sent
  +64s
  state closed
  error 110
)"},
    {"SimultaneousOpen", R"(   # RFC 9293 section 3.5, figure 7
  connect
  > S 0+0
  < S 0+0 mss 1000
  > SA 0+0 ack 1
  state syn_received
  < SA 0+0 ack 1
  state established
)"},
    {"PassiveOpen", R"(
  listen
  < S 0+0 mss 900 win 1000
  > SA 0+0 ack 1 mss 1000
  < S 0+0 mss 900
  > SA 0+0 ack 1          # ours was lost
  +1s
  > SA 0+0 ack 1
  < A 1+0 ack 1
  state established
  mss 900
)"},
    {"AWrongAckInTheHandshakeIsReset", R"(
  listen
  < S 0+0
  > SA 0+0 ack 1
  < A 1+0 ack 500
  > R 500+0
  state syn_received
)"},
    {"OptionsAreOnlyUsedIfBothHaveThem", R"(   # RFC 7323, RFC 2018
  config ts=1 ws=1
  connect
  > S 0+0 mss 1000 sackok ts 0 0 ws 6
  < SA 0+0 ack 1 mss 1000
  > A 1+0
  mss 1000
)"},
    {"TimestampsTakeTheirRoomAndAreChecked", R"(   # RFC 7323 sections 3.2 and 5
  config ts=1 ws=1
  connect
  any
  < SA 0+0 ack 1 mss 1000 ts 1000 0 ws 7 win 100
  > A 1+0 ts 0 1000
  mss 988
  < A 1+100 ack 1 ts 1010 0
  > A 1+0 ack 101 ts 0 1010
  < A 101+100 ack 1 ts 1005 0     # an old one
  > A 1+0 ack 101 ts 0 1010
  < A 101+100 ack 1               # without: dropped
  readable 100
)"},
    {"NewRenoWithoutSack", R"(   # RFC 6582
  config sack=0 reno=1
  connect
  any
  +10ms
  < SA 0+0 ack 1 mss 1000
  any
  write 6000
  any
  < A 1+0 ack 1
  < A 1+0 ack 1
  < A 1+0 ack 1
  > A 1+1000
  < A 1+0 ack 2001        # partial: the next hole at once
  > A 2001+1000
  < A 1+0 ack 6001
  cwnd 3
)"},
    {"MarksAreEchoedUntilTheSenderHasHeard", R"(   # RFC 3168 section 6.1
  config ecn=1
  connect
  > SEC 0+0
  < SAE 0+0 ack 1 mss 1000 win 60000
  > A 1+0
  < A 1+100 ack 1 ce
  > AE 1+0 ack 101
  < A 101+100 ack 1
  > AE 1+0 ack 201
  < AC 201+100 ack 1
  > A 1+0 ack 301
  write 3000
  > A 1+1000 ect
  > A 1001+1000 ect
  > PA 2001+1000 ect
  < AE 301+0 ack 3001
  write 1000
  > PAC 3001+1000 ect
  < A 301+0 ack 4001
)"},
    {"SuperSegments", R"(
  config gso=5080
  connect
  any
  < SA 0+0 ack 1 mss 1000
  any
  write 12500
  > A 1+5000 size 1000
  > A 5001+5000 size 1000
  < A 1+0 ack 10001
  > PA 10001+2500 size 1000
  < A 1+0 ack 12501
)"},
    {"TheReceiveWindowClosesAndOpens", R"(   # RFC 9293 section 3.8.6.2.2
  config rcv=4000
  connect
  any
  < SA 0+0 ack 1 mss 1000
  > A 1+0 win 4000
  < A 1+2000 ack 1
  > A 1+0 ack 2001 win 2000
  < A 2001+2000 ack 1
  > A 1+0 ack 4001 win 0
  < A 4000+0 ack 1        # a probe
  > A 1+0 ack 4001 win 0
  < A 4001+10 ack 1       # beyond the window
  > A 1+0 ack 4001 win 0
  readable 4000
  read 100
  read 900
  > A 1+0 ack 4001 win 1000
  read 3000
  > A 1+0 ack 4001 win 4000
)"},
};

// RFC 7413.
const Case kFastOpen[] = {
    {"AClientAsksForACookieFirst", R"(   # section 4.2.1
  connect fo 0 write 500
  > S 0+0 mss 1000 sackok fo 0
  +10ms
  < SA 0+0 ack 1 mss 1000 sackok fo 8 win 60000
  > PA 1+500 ack 1
  cookie 8
  state established
)"},
    {"ItsDataGoesWithTheSyn", R"(
  connect fo 8 write 500
  > S 0+500 mss 1000 sackok fo 8
  in_flight 0
  +10ms
  < SA 0+0 ack 501 mss 1000 sackok win 60000
  > A 501+0 ack 1
  state established
  write 100
  > PA 501+100 ack 1
)"},
    {"NoMoreThanFitsBesideTheOptions", R"(
  connect fo 8 write 1500
  > S 0+980 mss 1000 sackok fo 8
  +10ms
  < SA 0+0 ack 981 mss 1000 sackok win 60000
  > PA 981+520 ack 1
)"},
    {"WithACookieThatIsNotGoodTheDataGoesAgain", R"(   # section 4.2.2: the server acknowledges the SYN only
  connect fo 8 write 500
  > S 0+500 fo 8
  +10ms
  < SA 0+0 ack 1 mss 1000 sackok fo 4 win 60000
  > PA 1+500 ack 1
  cookie 4              # the one for the next time
)"},
    {"AServerMayTakeSomeOfIt", R"(
  connect fo 8 write 500
  > S 0+500 fo 8
  +10ms
  < SA 0+0 ack 201 mss 1000 sackok win 60000
  > PA 201+300 ack 1
)"},
    {"TheServersDataMayComeAtOnce", R"(
  connect fo 8 write 500
  > S 0+500 fo 8
  +10ms
  < SA 0+0 ack 501 mss 1000 sackok win 60000
  > A 501+0 ack 1
  < PA 1+200 ack 501
  > A 501+0 ack 201
  readable 200
)"},
    {"InABlackHoleItIsDoneWithout", R"(   # section 4.2.1: a middlebox may be what drops them
  connect fo 8 write 500
  > S 0+500 fo 8
  +999ms
  +1ms
  > S 0+0 mss 1000 sackok
  +1999ms
  +1ms
  > S 0+0 mss 1000 sackok
  +10ms
  < SA 0+0 ack 1 mss 1000 sackok win 60000
  > PA 1+500 ack 1
  state established
)"},
    {"ABlackHoleSwallowsRequestsToo", R"(
  connect fo 0 write 500
  > S 0+0 fo 0
  +1s
  > S 0+0 mss 1000 sackok
  +10ms
  < SA 0+0 ack 1 mss 1000 sackok win 60000
  > PA 1+500 ack 1
  cookie 0
)"},
    {"AnAnswerToTheFirstSynIsGoodForTheSecond", R"(
  connect fo 8 write 500
  > S 0+500 fo 8
  +1s
  > S 0+0
  < SA 0+0 ack 1 mss 1000 sackok win 60000
  > PA 1+500 ack 1
)"},
    {"ARefusalIsOne", R"(
  connect fo 8 write 500
  > S 0+500 fo 8
  < RA 0+0 ack 501
  error 111
  state closed
)"},
    {"AServerGivesACookieAndTakesNoData", R"(   # section 4.1.2: to a request, and to one that is not good
  listen fo 8
  < S 0+500 mss 1000 sackok fo 4
  > SA 0+0 ack 1 mss 1000 sackok fo 8
  readable 0
  +10ms
  < PA 1+500 ack 1
  > A 1+0 ack 501
  readable 500
)"},
    {"AServerTakesTheDataOfAGoodOne", R"(
  listen data
  < S 0+500 mss 1000 sackok fo 8 win 60000
  > SA 0+0 ack 501 mss 1000 sackok
  state syn_received
  readable 500
  write 300             # before the handshake is complete
  > PA 1+300 ack 501
  +10ms
  < A 501+0 ack 301
  state established
)"},
    {"AServersAnswerComesAgain", R"(
  listen data
  < S 0+500 mss 1000 sackok fo 8 win 60000
  > SA 0+0 ack 501
  +1s
  > SA 0+0 ack 501 mss 1000 sackok
  < A 501+0 ack 1
  state established
  readable 500
)"},
    {"AServersCookieIsInItsFirstAnswerOnly", R"(
  listen fo 8
  < S 0+0 mss 1000 sackok fo 0
  > SA 0+0 ack 1 fo 8
  +1s
  > SA 0+0 ack 1 mss 1000 sackok
  < A 1+0 ack 1
  state established
)"},
};

class ScriptTest : public ::testing::TestWithParam<std::pair<Case, bool>> {};

TEST_P(ScriptTest, Plays) {
  auto [c, opened] = GetParam();
  EXPECT_EQ(Script::Run(opened ? kOpened + c.script : c.script), "");
}

std::vector<std::pair<Case, bool>> All() {
  std::vector<std::pair<Case, bool>> all;
  for (const Case& c : kEstablished) all.emplace_back(c, true);
  for (const Case& c : kWhole) all.emplace_back(c, false);
  for (const Case& c : kFastOpen) all.emplace_back(c, false);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Tcp, ScriptTest, ::testing::ValuesIn(All()), [](const auto& i) { return i.param.first.name; });

// The driver must be able to fail.
TEST(Script, NoticesWhatIsWrong) {
  EXPECT_NE(Script::Run(kOpened + "> A 1+0\n"), "");
  EXPECT_NE(Script::Run(kOpened + "write 10\n"), "");
  EXPECT_NE(Script::Run(kOpened + "write 10\n> PA 1+11\n"), "");
  EXPECT_NE(Script::Run(kOpened + "write 10\n> PA 2+10\n"), "");
  EXPECT_NE(Script::Run(kOpened + "< A 3+10 ack 1\n> A 1+0 ack 1 sack 3-12\n"), "");
  EXPECT_NE(Script::Run(kOpened + "state closed\n"), "");
  EXPECT_NE(Script::Run("connect fo 8 write 10\n> S 0+10\n"), "");
  EXPECT_NE(Script::Run("connect fo 8 write 10\n> S 0+10 fo 4\n"), "");
  EXPECT_NE(Script::Run("connect fo\n> S 0+0 fo 0\n"), "");
}

}  // namespace
}  // namespace redoubt::netstack::tcp
