#include "pkg/netstack/fragmentation/reassembler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "test/fuzz/rounds.h"

namespace redoubt::netstack {
namespace {

using Outcome = Reassembler::Outcome;
constexpr size_t kHeader = 20;

struct ReassemblerTest : testing::Test {
  ~ReassemblerTest() override { r->Close(); }
  // A fragment whose payload bytes tell where they belong.
  PacketPtr Fragment(size_t offset, size_t length) {
    Buffer b = Buffer::Allocate(kHeader + length);
    for (size_t i = 0; i < length; i++) b.MutableView(0)[kHeader + i] = static_cast<std::byte>((offset + i) * 31 >> 3);
    return NewPacket(std::move(b));
  }
  Reassembler::Added Add(size_t offset, size_t length, bool more, uint32_t id = 1) {
    return r->Add({Address::Ipv4(1, 2, 3, 4), Address::Ipv4(5, 6, 7, 8), id, 17}, Fragment(offset, length), kHeader,
                  offset, more);
  }
  void Check(const Packet& p, size_t size) {
    ASSERT_EQ(p.data.size(), kHeader + size);
    std::vector<std::byte> bytes(p.data.size());
    p.data.CopyOut(0, bytes);
    for (size_t i = 0; i < size; i++) ASSERT_EQ(bytes[kHeader + i], static_cast<std::byte>(i * 31 >> 3)) << i;
  }
  VirtualClock clock;
  SeededRandom random{1};
  TimerQueue timers;
  size_t expired = 0;
  RefPtr<Reassembler> r = MakeRef<Reassembler>(clock, random, timers, 30 * kSecond, [this](PacketPtr) { expired++; });
};

struct Step {
  size_t offset, length;
  bool more;
  Outcome outcome;
};
struct Case {
  const char* name;
  std::vector<Step> steps;
};

TEST_F(ReassemblerTest, Table) {
  const Case kCases[] = {
      {"in order",
       {{0, 16, true, Outcome::kWaiting}, {16, 8, true, Outcome::kWaiting}, {24, 5, false, Outcome::kComplete}}},
      {"backwards",
       {{24, 5, false, Outcome::kWaiting}, {16, 8, true, Outcome::kWaiting}, {0, 16, true, Outcome::kComplete}}},
      {"duplicates are ignored",
       {{0, 16, true, Outcome::kWaiting}, {0, 16, true, Outcome::kWaiting}, {16, 13, false, Outcome::kComplete}}},
      {"overlap at the start kills",
       {{0, 16, true, Outcome::kWaiting}, {8, 21, false, Outcome::kDropped}, {16, 13, false, Outcome::kDropped}}},
      {"overlap at the end kills", {{16, 13, false, Outcome::kWaiting}, {0, 24, true, Outcome::kDropped}}},
      {"overlap within kills", {{0, 32, true, Outcome::kWaiting}, {8, 8, true, Outcome::kDropped}}},
      {"overlap around kills", {{8, 8, true, Outcome::kWaiting}, {0, 32, true, Outcome::kDropped}}},
      {"same start, other length kills", {{0, 16, true, Outcome::kWaiting}, {0, 8, true, Outcome::kDropped}}},
      {"length no multiple of 8", {{0, 15, true, Outcome::kDropped}}},
      {"empty", {{8, 0, false, Outcome::kDropped}}},
      {"beyond 64 KiB", {{65528, 16, false, Outcome::kDropped}}},
      {"two ends", {{16, 8, false, Outcome::kWaiting}, {8, 5, false, Outcome::kDropped}}},
      {"behind the end", {{0, 8, false, Outcome::kComplete}}},
      {"data behind a known end", {{8, 8, false, Outcome::kWaiting}, {16, 8, true, Outcome::kDropped}}},
      {"end before known data", {{16, 8, true, Outcome::kWaiting}, {8, 8, false, Outcome::kDropped}}},
  };
  uint32_t id = 0;
  for (const Case& c : kCases) {
    id++;
    for (const Step& s : c.steps) {
      Reassembler::Added a = Add(s.offset, s.length, s.more, id);
      EXPECT_EQ(a.outcome, s.outcome) << c.name << " at " << s.offset;
      if (a.outcome == Outcome::kComplete) Check(*a.packet, s.length == 8 ? 8 : 29);
    }
  }
}

TEST_F(ReassemblerTest, TimesOutAndReportsTheFirstFragmentOnly) {
  Add(0, 8, true, 1);
  Add(8, 8, true, 2);
  clock.Advance(30 * kSecond - 1);
  timers.RunTimers(clock.Now());
  EXPECT_GT(r->memory(), 0u);
  clock.Advance(1);
  timers.RunTimers(clock.Now());
  EXPECT_EQ(expired, 1u);
  EXPECT_EQ(r->memory(), 0u);
  EXPECT_EQ(r->failures(), 2u);
  EXPECT_EQ(Add(8, 8, false, 1).outcome, Outcome::kWaiting);  // starts anew
}

TEST_F(ReassemblerTest, MemoryIsBoundedAndTheOldestGoes) {
  for (uint32_t id = 0; id < 20000; id++) {
    Add(0, 1400, true, id);
    ASSERT_LE(r->memory(), Reassembler::kMaxMemory);
  }
  EXPECT_GT(r->failures(), 10000u);
  Reassembler::Added a = Add(1400, 8, false, 19999);
  ASSERT_EQ(a.outcome, Outcome::kComplete);
  Check(*a.packet, 1408);
  for (uint32_t id = 0; id < 5000; id++) Add(0, 8, true, 100000 + id);
  SUCCEED();
}

TEST_F(ReassemblerTest, FragmentsOfOneDatagramAreBounded) {
  for (size_t i = 0; i < Reassembler::kMaxFragments; i++) ASSERT_EQ(Add(i * 16, 8, true).outcome, Outcome::kWaiting);
  EXPECT_EQ(Add(8000, 8, true).outcome, Outcome::kDropped);
  EXPECT_EQ(r->memory(), 0u);
}

// Whatever the order, with duplicates, the datagram comes together exactly once and intact.
TEST_F(ReassemblerTest, AnyOrderWithDuplicates) {
  fuzz::Rounds(300, [&](uint64_t seed) {
    std::mt19937 rng(static_cast<uint32_t>(seed));
    size_t total = 9 + rng() % 9000;
    std::vector<Step> steps;
    for (size_t at = 0; at < total;) {
      size_t n = std::min<size_t>(8 * (1 + rng() % 180), total - at);
      steps.push_back({at, n, at + n < total, Outcome::kWaiting});
      at += n;
    }
    if (steps.size() > 1) {
      for (int i = 0; i < 3; i++) steps.push_back(steps[rng() % steps.size()]);
    }
    std::shuffle(steps.begin(), steps.end(), rng);
    bool complete = false;
    for (const Step& s : steps) {
      Reassembler::Added a = Add(s.offset, s.length, s.more, static_cast<uint32_t>(1000 + seed));
      ASSERT_NE(a.outcome, Outcome::kDropped);
      if (a.outcome == Outcome::kComplete) {
        complete = true;
        Check(*a.packet, total);
        break;
      }
    }
    ASSERT_TRUE(complete);
  });
}

TEST(TokenBucket, RateAndBurst) {
  TokenBucket bucket(10, 5);
  Time now = kSecond;
  int allowed = 0;
  for (int i = 0; i < 100; i++) allowed += bucket.Allow(now);
  EXPECT_EQ(allowed, 5);
  for (int i = 0; i < 100; i++) {
    now += 10 * kMillisecond;
    allowed += bucket.Allow(now);
  }
  EXPECT_EQ(allowed, 15);
  now += 10 * kSecond;
  for (int i = 0; i < 100; i++) allowed += bucket.Allow(now);
  EXPECT_EQ(allowed, 20);
}

}  // namespace
}  // namespace redoubt::netstack
