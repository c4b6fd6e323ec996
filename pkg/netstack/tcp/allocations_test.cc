// A connection that has warmed up moves segments without a call of operator new: buffers, packets, timers and what is
// remembered of a segment in flight are all used again.
#include "test/perf/allocations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "pkg/netstack/tcp/test_host.h"

namespace redoubt::netstack::tcp {
namespace {

constexpr size_t kWrite = 64 << 10;

struct Pair : ConnectedHosts {
  // One round trip: as much written as there is room for, and all read that has come. Returns the segments sent.
  size_t Turn(size_t most, size_t drop = 0) {
    if (Result<size_t> room = client->WriteRoom(); room && *room > 0) {
      EXPECT_TRUE(client->Write(Buffer::Allocate(std::min(*room, most))));
    }
    const size_t segments = Carry(a, b, drop);
    while (server->Readable() > 0) EXPECT_TRUE(server->Read(kWrite));
    Carry(b, a);
    clock.Advance(kMillisecond);
    Timers();
    return segments;
  }
};

// Calls of operator new while `segments` segments are sent, after as many to warm up.
uint64_t Count(Pair& p, size_t most, size_t segments, size_t drop = 0) {
  uint64_t before = 0;
  for (int round = 0; round < 2; round++) {
    before = test::Allocations();
    for (size_t sent = 0; sent < segments;) {
      const size_t n = p.Turn(most, drop);
      if (::testing::Test::HasFailure()) return ~uint64_t{0};
      sent += n;
    }
  }
  return test::Allocations() - before;
}

TEST(Allocations, AreCounted) {
  const uint64_t before = test::Allocations();
  auto p = std::make_unique<std::string>(100, 'x');
  EXPECT_EQ(test::Allocations() - before, 2u);
}

TEST(Allocations, NoneForSegmentsOfAStream) {
  Pair p;
  EXPECT_EQ(Count(p, kWrite, 10'000), 0u);
}

TEST(Allocations, NoneForSmallWrites) {
  Pair p;
  EXPECT_EQ(Count(p, 1, 3'000), 0u);
}

// The list of the pieces behind a hole is there only while there is one.
TEST(Allocations, TwoForAHole) {
  Pair p;
  EXPECT_LE(Count(p, kWrite, 9'700, 97), 2u * (9'700 / 97 + 1));
}

TEST(Allocations, NoneOnALoopback) {
  VirtualClock clock;
  TestHost host(clock, 1);
  RefPtr<Endpoint> listener = host.Listener(80), client = host.New();
  EXPECT_EQ(Errno_(client->Connect(Local(80))), EINPROGRESS);
  Result<RefPtr<Endpoint>> accepted = listener->Accept();
  ASSERT_TRUE(accepted);
  uint64_t before = 0;
  for (int round = 0; round < 2; round++) {
    before = test::Allocations();
    for (int i = 0; i < 5'000; i++) {
      Result<size_t> room = client->WriteRoom();
      ASSERT_TRUE(room);
      if (*room > 0) {
        ASSERT_TRUE(client->Write(Buffer::Allocate(std::min(*room, kWrite))));
      }
      while ((*accepted)->Readable() > 0) ASSERT_TRUE((*accepted)->Read(kWrite));
      clock.Advance(10 * kMicrosecond);
      host.stack.timers().RunTimers(clock.Now());
    }
  }
  EXPECT_EQ(test::Allocations() - before, 0u);
  client->Close(true);
  (*accepted)->Close(true);
  listener->Close();
}

}  // namespace
}  // namespace redoubt::netstack::tcp
